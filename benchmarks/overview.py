"""All data sets on one page: their models, what pairs differ by, noise, and the seldom seen."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.measured import Groups, Runs, interval_over_seeds
from benchmarks.tables import DIFFERENCE, Compared, ordered, table, title

VIEWS = {"": "test", ", id view": "test_id_view", ", multimodal view": "test_mm_view"}
SELDOM = (
    "users with at most 5 interactions",
    "targets with at most 5 in training",
    "targets never trained",
)
METRIC = "ndcg_at_20"


def names_of_data(groups: Groups) -> dict[tuple[str, str], str]:
    """Returns the name of every data set, with its protocol where it has more than one."""
    every = [data for data, _ in groups]
    return {
        (data, protocol): data if every.count(data) == 1 else f"{data}, {protocol}"
        for data, protocol in groups
    }


def models_table(labels: Mapping[str, Runs]) -> str:
    """Returns models of one data set, each with its views, and the seconds of its training."""
    wanted = ("ndcg_at_10", "ndcg_at_20", "hit_rate_at_10")
    rows = []
    for runs in ordered(labels):
        for view, part in VIEWS.items():
            found = [runs.interval(part, metric) for metric in wanted]
            if None in found:
                continue
            cells = [value.text() for value in found if value is not None]
            of_the_whole = ["", ""]
            if not view:
                # No mean: seeds may have been trained on machines of unlike speed.
                seconds = [f"{run['training_seconds']:,.0f}" for run in runs.results.values()]
                kept = runs.interval("test_unfiltered", "ndcg_at_10")
                of_the_whole = [kept.text() if kept else "", " ".join(seconds)]
            seeds = str(len(runs.values(part, wanted[0])))
            rows.append([runs.label + view, seeds, *cells, *of_the_whole])
    titles = [*map(title, wanted), "NDCG@10, seen kept", "seconds of training, every seed"]
    return table(["", "seeds", *titles], rows)


def pairs_table(found: Mapping[str, Sequence[Compared]]) -> str:
    """Returns what pairs of labels differ by, a row for every data set and pair."""
    rows = [
        [each.name, data, *each.cells()]
        for data, of_data in found.items()
        for each in of_data
        if each.metric == METRIC
    ]
    rows.sort(key=lambda row: row[0])
    return table([title(METRIC), "data", *DIFFERENCE], rows)


def _named(groups: Groups, shown: Sequence[str]) -> Iterator[tuple[str, Runs]]:
    """Yields runs of the labels to show, of every data set, each with what its row is called."""
    names = names_of_data(groups)
    for key, labels in groups.items():
        for runs in ordered({label: labels[label] for label in shown if label in labels}):
            yield f"{names[key]}: {runs.label}", runs


def noise_table(groups: Groups, shown: Sequence[str]) -> str:
    """Returns the share of the metric that is lost to random items in test histories."""
    levels = sorted(
        {level for labels in groups.values() for level in noise_levels(labels, "noise")}
    )
    parts = [f"test_noise_{level:g}" for level in levels]
    rows = []
    for name, runs in _named(groups, shown):
        # A seed of which noise was not measured has no part in what is lost.
        measured = runs.having(parts)
        without = measured.interval("test", METRIC)
        if without is None:
            continue
        lost = []
        for part in parts:
            found = measured.values(part, METRIC)
            if not without.mean or len(found) < len(measured.results):
                lost.append("")
                continue
            mean = interval_over_seeds(found).mean
            lost.append(f"{mean:.4f} ({mean / without.mean - 1:+.0%})")
        rows.append([name, str(len(measured.results)), f"{without.mean:.4f}", *lost])
    titles = ["seeds", "none", *(f"{level:.0%} random" for level in levels)]
    return table([title(METRIC), *titles], rows)


def seldom_table(groups: Groups, shown: Sequence[str]) -> str:
    """Returns the metric of users and targets of which training saw little or nothing."""
    rows = []
    for name, runs in _named(groups, shown):
        cells = []
        for kind in SELDOM:
            found = [of["slices"][kind] for of in runs.results.values() if kind in of["slices"]]
            mean = interval_over_seeds([of[METRIC] for of in found]).mean if found else 0.0
            cells.append(f"{mean:.4f} ({found[0]['examples']:,})" if found else "")
        if any(cells):
            rows.append([name, *cells])
    return table([f"{title(METRIC)} (examples)", *SELDOM], rows)


def noise_levels(labels: Mapping[str, Runs], kind: str) -> list[float]:
    """Returns the shares of noise of a kind, `noise` or `insert`, that were measured."""
    head = f"test_{kind}_"
    found = {
        float(part.removeprefix(head))
        for runs in labels.values()
        for result in runs.results.values()
        for part in result
        if part.startswith(head)
    }
    return sorted(found)
