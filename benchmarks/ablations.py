"""What the modules of BiVRec are worth: the whole beside what it is without one of them."""

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.measured import Runs, paired, settings_of
from benchmarks.overview import METRIC
from benchmarks.settings import leaves
from benchmarks.tables import ordered, table, title

MODULES = (
    "model.cluster_attention",
    "model.gaussian_attention",
    "model.num_interests",
    "model.scales",
    "training.loss.allocation_form",
    "training.loss.allocation_weight",
    "training.loss.semantic_weight",
)
"""Settings that leave a module out, or put another in its place."""


def ablations(labels: Mapping[str, Runs]) -> dict[str, Runs]:
    """Returns the runs that differ from their model's own in modules alone."""
    return {
        label: runs
        for label, runs in labels.items()
        if label != runs.model and runs.model in labels and _in_modules(runs, labels[runs.model])
    }


def _in_modules(runs: Runs, whole: Runs) -> bool:
    if runs.training_share != whole.training_share or runs.warm_start != whole.warm_start:
        return False
    of_whole = dict(leaves(settings_of(whole.example)))
    found = dict(leaves(settings_of(runs.example)))
    changed = {name for name in of_whole.keys() | found if of_whole.get(name) != found.get(name)}
    return bool(changed) and changed <= set(MODULES)


def ablations_table(labels: Mapping[str, Runs], metric: str = METRIC) -> str:
    """Returns what is lost without a module, on validation and on test, of the seeds of both.

    Intervals are of a bootstrap over users, as for all pairs.
    """
    rows = []
    for runs in ordered(ablations(labels)):
        whole, changed = _of_the_same_seeds(labels[runs.model], runs)
        cells = []
        for part in ("validation", "test"):
            with_it, without = whole.interval(part, metric), changed.interval(part, metric)
            lost = paired(whole, changed, metric, (part, part))
            cells += [
                "" if with_it is None else with_it.text(),
                "" if without is None else without.text(),
                "" if lost is None else f"{lost.mean:+.4f} ({lost.low:+.4f} to {lost.high:+.4f})",
            ]
        seeds = " ".join(str(seed) for seed in sorted(changed.results))
        rows.append([runs.label, seeds, *cells])
    header = ["", "seeds"]
    for part in ("validation", "test"):
        header += [f"{title(metric)}, {part}: whole", "this", "whole − this"]
    return table(header, rows)


def _of_the_same_seeds(*every: Runs) -> list[Runs]:
    """Returns runs of the seeds that all have; as they are where none is common."""
    common = set.intersection(*(set(runs.results) for runs in every))
    if not common:
        return list(every)
    return [
        replace(
            runs,
            results={seed: runs.results[seed] for seed in sorted(common)},
            ranks={seed: file for seed, file in runs.ranks.items() if seed in common},
        )
        for runs in every
    ]
