"""Tables and plots of what `benchmarks/accuracy.py` measured.

    .venv/bin/python -m benchmarks.report --output docs/benchmarks --pair bivrec:sasrec

Every data set has a page; `README.md` has the models of all of them in one table each, and what
pairs differ by, noise, and the users and items with few interactions, in one table for all.

Results are files DATA-LABEL-SEED.json; runs that share DATA, protocol and LABEL differ in their
seed alone, which is checked. A label is a model's name, or a model's name and what was changed, as
in `bivrec-no_semantic`. Those named by `--pair` stand beside the models; those that differ in a
module alone are compared with the whole, on validation and on test; others follow. Means come with
95 % intervals (Student's t over seeds). Pairs are compared on the same users: differences of
per-user metrics, averaged over seeds, with 95 % intervals of a bootstrap over users; it needs the
ranks that `accuracy.py` keeps.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import overview
from benchmarks.ablations import ablations, ablations_table
from benchmarks.commands import command
from benchmarks.measured import Runs, interval_over_seeds, read_results
from benchmarks.overview import VIEWS, noise_levels
from benchmarks.tables import Compared, compared, differences_table, ordered, table, title
from bivrec_tf.models import MODEL_NAMES

HERE = Path(__file__).parent
METRICS = ("recall_at_10", "ndcg_at_10", "recall_at_20", "ndcg_at_20", "mrr_at_20")
PAIRED_METRICS = ("ndcg_at_10", "ndcg_at_20", "recall_at_20")
MODELS_SIDE_BY_SIDE = ("sasrec", "pure_id", "bivrec")
# More lines in one plot take a palette of more colours.
_DEFAULT_COLOURS = 10


def _known_metrics(labels: Mapping[str, Runs]) -> list[str]:
    found = next(iter(labels.values())).example["test"]
    return [metric for metric in METRICS if metric in found]


def accuracy_table(labels: Mapping[str, Runs], part: str = "test") -> str:
    """Returns accuracy by label: mean and interval over seeds."""
    metrics = _known_metrics(labels)
    rows = []
    for runs in ordered(labels):
        found = [runs.interval(part, metric) for metric in metrics]
        if all(value is not None for value in found):
            cells = [value.text() for value in found if value is not None]
            rows.append([runs.label, str(len(runs.values(part, metrics[0]))), *cells])
    return table(["", "seeds", *map(title, metrics)], rows)


def all_metrics_table(labels: Mapping[str, Runs]) -> str:
    """Returns every metric and the coverage of the catalogue, a row each; means over seeds."""
    in_order = ordered(labels)
    rows = []
    for part in ("test", "coverage"):
        names = dict.fromkeys(name for runs in in_order for name in runs.example.get(part, ()))
        for name in names:
            found = [runs.interval(part, name) for runs in in_order]
            rows.append([title(name), *(value.text() if value else "" for value in found)])
    return table(["", *(runs.label for runs in in_order)], rows)


def reach_table(labels: Mapping[str, Runs], goals: Sequence[float]) -> str:
    """Returns the seconds of training, evaluation left out, until validation NDCG@10 is reached."""
    rows = []
    for runs in ordered(labels):
        curves = [found["curve"] for found in runs.results.values() if found["curve"]]
        reached = [
            [next((t for t, _, value in curve if value >= goal), math.inf) for curve in curves]
            for goal in goals
        ]
        if any(math.isfinite(t) for seconds in reached for t in seconds):
            texts = [["never" if t == math.inf else f"{t:,.0f}" for t in row] for row in reached]
            rows.append([runs.label, *map(" ".join, texts)])
    return table(["seconds, every seed", *(f"{goal:g}" for goal in goals)], rows)


def _epochs(run: Mapping[str, Any]) -> str:
    """Of a peer, whose curve has fewer points, what it says itself."""
    return str(run.get("epochs", len(run["curve"])))


def saved_table(labels: Mapping[str, Runs]) -> str:
    """Returns what runs took from data to saved weights, and what these are worth.

    Ours with co-occurrence, validation, calibration and the export; a peer's without the lists
    that it makes for our validation.
    """
    rows = []
    for runs in (every.saved for every in ordered(labels)):
        found = list(runs.results.values())
        if found:
            epochs = [_epochs(run) for run in found]
            seconds = [f"{run['saved_seconds']:,.0f}" for run in found]
            quality = [
                [f"{run[split]['ndcg_at_10']:.4f}" for run in found]
                for split in ("validation", "test")
            ]
            rows.append([runs.label, *map(" ".join, (epochs, seconds, *quality)), runs.machine])
    header = ["every seed", "epochs", "seconds", "NDCG@10, validation", "test"]
    return table([*header, "machine"], rows)


def views_table(labels: Mapping[str, Runs], metric: str = "ndcg_at_20") -> str:
    """Returns what each view reaches alone in models with two."""
    rows = []
    for runs in ordered(labels):
        parts = [runs.interval(part, metric) for part in VIEWS.values()]
        if None not in parts:
            weight = interval_over_seeds([found["id_weight"] for found in runs.results.values()])
            cells = [value.text() for value in parts if value is not None]
            rows.append([runs.label, *cells, weight.text(2)])
    return table(["", f"{title(metric)}, both", "id alone", "mm alone", "id weight"], rows)


def slices_table(labels: Mapping[str, Runs], metric: str = "ndcg_at_20") -> str:
    """Returns a metric by kind of user and target."""
    in_order = ordered(labels)
    names: dict[str, int] = {}
    for runs in in_order:
        for found in runs.results.values():
            for name, values in found["slices"].items():
                names.setdefault(name, values["examples"])
    rows = []
    for name, examples in names.items():
        cells = []
        for runs in in_order:
            values = [
                found["slices"][name][metric]
                for found in runs.results.values()
                if name in found["slices"]
            ]
            cells.append(interval_over_seeds(values).text() if values else "")
        rows.append([name, f"{examples:,}", *cells])
    return table([title(metric), "examples", *(runs.label for runs in in_order)], rows)


def shares_table(labels: Mapping[str, Runs], metric: str = "ndcg_at_20") -> str:
    """Returns a metric by share of the training users: from scratch, and from another model."""
    cells: dict[str, dict[float, str]] = {}
    for runs in ordered(labels):
        start = f"{runs.model} from {runs.warm_start}" if runs.warm_start else runs.model
        for view, part in (("", "test"), (", multimodal view", "test_mm_view")):
            found = runs.interval(part, metric)
            if found is not None:
                row = cells.setdefault(start + view, {})
                if runs.training_share in row:
                    # Something else was changed, too: by its label, in a row of its own.
                    row = cells.setdefault(runs.label + view, {})
                row[runs.training_share] = found.text()
    shares = sorted({share for row in cells.values() for share in row})
    rows = [[name, *(row.get(share, "") for share in shares)] for name, row in cells.items()]
    return table([title(metric), *(f"{share:.0%} of the users" for share in shares)], rows)


def cost_table(labels: Mapping[str, Runs]) -> str:
    """Returns what training took, every seed; seconds are of training alone, without evaluation."""
    rows = []
    for runs in ordered(labels):
        found = list(runs.results.values())
        columns = [
            [_epochs(run) for run in found],
            [f"{run['training_seconds']:,.0f}" for run in found],
            [f"{run['windows_per_second']:,.0f}" for run in found],
        ]
        rows.append(
            [runs.label, f"{found[0]['parameters']:,}"]
            + [" ".join(each) for each in columns]
            + [f"{max(run['peak_mib'] for run in found):,}", runs.machine]
        )
    header = ["", "parameters", "epochs", "seconds of training", "windows a second", "peak MiB"]
    return table([*header, "machine, where it was noted"], rows)


def commands_table(labels: Mapping[str, Runs]) -> str:
    """Returns what every label was run with, beside `--seed`, and the revisions that ran it."""
    rows = []
    for runs in ordered(labels):
        options = command(runs)
        found = [run.get("revision") or "" for run in runs.results.values()]
        revisions = " ".join(dict.fromkeys(filter(None, found)))
        rows.append([runs.label, revisions, f"`{options}`" if options else "see benchmarks/peers"])
    return table(["", "revision", "options of benchmarks.accuracy"], rows)


def plot_noise(labels: Mapping[str, Runs], kind: str, path: Path) -> None:
    """Plots NDCG@20 over the share of noise in test histories."""
    figure, axis = _axes()
    for runs in ordered(labels):
        parts = {share: f"test_{kind}_{share:g}" for share in noise_levels(labels, kind)}
        measured = runs.having(parts.values())
        places, values = [0.0], [measured.interval("test", "ndcg_at_20")]
        for share, part in parts.items():
            found = measured.interval(part, "ndcg_at_20")
            if found is not None:
                places.append(share)
                values.append(found)
        if len(places) > 1:
            _draw(axis, [100 * p for p in places], [v for v in values if v], runs.label)
    what = "made random" if kind == "noise" else "inserted at random"
    axis.set(xlabel=f"items of test histories {what}, %", ylabel="NDCG@20", ylim=(0, None))
    _save(figure, axis, path)


def plot_time(labels: Mapping[str, Runs], path: Path) -> None:
    """Plots validation NDCG@10 over seconds of training: every seed a line."""
    from matplotlib import colormaps

    figure, axis = _axes()
    if len(labels) > _DEFAULT_COLOURS:
        axis.set_prop_cycle(color=colormaps["tab20"].colors)
    colours = {}
    for runs in ordered(labels):
        for result in runs.results.values():
            if not result["curve"]:
                continue
            seconds, _, quality = zip(*result["curve"], strict=True)
            first = runs.label not in colours
            (line,) = axis.plot(
                seconds, quality, color=colours.get(runs.label), label=runs.label if first else None
            )
            colours[runs.label] = line.get_color()
            if "saved_seconds" in result:
                whole = result["saved_seconds"], result["validation"]["ndcg_at_10"]
                axis.plot(*whole, "x", color=colours[runs.label])
    text = "seconds of training, without evaluation"
    if any(runs.saved.results for runs in labels.values()):
        text += "; crosses: from data to saved weights"
    axis.set(xlabel=text, ylabel="validation NDCG@10")
    _save(figure, axis, path)


def _axes():
    from matplotlib.figure import Figure

    # Without pyplot there is no display to look for.
    figure = Figure(figsize=(6, 4))
    return figure, figure.add_subplot()


def _draw(axis, places, values, label) -> None:
    (line,) = axis.plot(places, [value.mean for value in values], "o-", label=label)
    if all(math.isfinite(value.low) for value in values):
        low, high = [v.low for v in values], [v.high for v in values]
        axis.fill_between(places, low, high, color=line.get_color(), alpha=0.15)


def _save(figure, axis, path: Path) -> None:
    if axis.has_data():
        axis.legend()
        figure.tight_layout()
        figure.savefig(path, dpi=120)


def transferred(labels: Mapping[str, Runs]) -> dict[str, Runs]:
    """Returns runs on a share of the users, and those that another data set's model started."""
    return {
        label: runs
        for label, runs in labels.items()
        if runs.training_share < 1 or runs.warm_start is not None
    }


def side_by_side(labels: Mapping[str, Runs], pairs: Iterable[tuple[str, str]]) -> dict[str, Runs]:
    """Returns models, peers, and what is named in pairs."""
    # Peers have labels of their own, which are their models' names too.
    named = {side.partition("/")[0] for pair in pairs for side in pair} - transferred(labels).keys()
    return {
        label: runs
        for label, runs in labels.items()
        if label in MODEL_NAMES or runs.model not in MODEL_NAMES or label in named
    }


def report(
    data: str,
    protocol: str,
    labels: dict[str, Runs],
    models: dict[str, Runs],
    pairs: Sequence[Compared],
    folder: Path,
    goals: Sequence[float],
) -> str:
    """Writes the plots of one data set and returns its tables; `models` are side by side."""
    shares, of_modules = transferred(labels), ablations(labels)
    changed = {
        label: runs
        for label, runs in labels.items()
        if label not in models.keys() | shares.keys() | of_modules.keys()
    }
    plain = {label: runs for label, runs in models.items() if runs.label == runs.model}
    in_full = {runs.model: labels[runs.model] for runs in shares.values() if runs.model in labels}
    example = next(iter(labels.values())).example
    parts = [
        f"## {data}, {protocol}\n",
        f"{example['items']:,} items, {example['training_targets']:,} training interactions, "
        f"{example['examples']['test']:,} test examples. The whole catalogue is ranked.\n",
    ]
    for heading, text in (
        ("Accuracy on the test split, seen items left out", accuracy_table(models)),
        ("The same, seen items kept in the ranking", accuracy_table(models, "test_unfiltered")),
        ("Pairs on the same users", differences_table(pairs)),
        ("Views", views_table(models)),
        ("Without a module, or with another in its place", ablations_table(labels)),
        ("Other settings, and code of before", accuracy_table(changed) if changed else ""),
        ("Shares of the data and transfer", shares_table({**in_full, **shares})),
        ("Every metric, seen items left out", all_metrics_table(plain)),
        ("Kinds of users and targets", slices_table(models)),
        ("Cost", cost_table(models)),
        ("Training until validation NDCG@10 reached", reach_table(models, goals)),
        ("From data ready to weights saved", saved_table(labels)),
        ("How each was run", commands_table(labels)),
    ):
        if text.count("\n") > 2:
            parts += [f"### {heading}\n", text]
    for kind in ("noise", "insert"):
        if noise_levels(labels, kind):
            name = f"{data}-{protocol}-{kind}.png"
            plot_noise(models, kind, folder / name)
            parts.append(f"![NDCG@20 under noise]({name})\n")
    if any(result["curve"] for runs in models.values() for result in runs.results.values()):
        name = f"{data}-{protocol}-time.png"
        saved = {label: runs for label, runs in labels.items() if runs.saved.results}
        plot_time(models | saved, folder / name)
        parts.append(f"![Validation NDCG@10 over time]({name})\n")
    return "\n".join(parts)


@click.command(help=__doc__)
@click.option(
    "--results",
    default=str(HERE / "results"),
    show_default=True,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="For .md and .png.")
@click.option(
    "--pair",
    "names",
    multiple=True,
    help="As in bivrec:sasrec, or bivrec/id_view:pure_id; all of bivrec without.",
)
@click.option(
    "--reach", "goals", multiple=True, type=float, help="Validation NDCG@10, as in 0.17: when?"
)
def main(results: Path, output: Path, names: tuple[str, ...], goals: tuple[float, ...]) -> None:
    """Reads, prints, writes."""
    output.mkdir(parents=True, exist_ok=True)
    groups = read_results(results)
    if not groups:
        raise click.ClickException(f"{results} holds no results of benchmarks/accuracy.py")
    asked = [tuple(name.split(":")) for name in names]
    if any(len(pair) != 2 for pair in asked):
        raise click.UsageError("--pair: expected two labels, as in bivrec:sasrec")
    for pair in asked:
        sides = {side.partition("/")[0] for side in pair}
        if not any(sides <= labels.keys() for labels in groups.values()):
            raise click.UsageError(f"--pair {':'.join(pair)}: no data set has results of both")
    of_models = ["# All data sets: the test split, seen items left out\n"]
    differences: dict[str, list[Compared]] = {}
    names_of_data = overview.names_of_data(groups)
    for (data, protocol), labels in groups.items():
        pairs = asked or [("bivrec", label) for label in sorted(labels) if label != "bivrec"]
        shown = side_by_side(labels, asked)
        found = compared(labels, pairs, PAIRED_METRICS)
        differences[names_of_data[data, protocol]] = found
        # Where nothing but changed models was run, those are what there is to show.
        text = report(data, protocol, labels, shown or labels, found, output, goals)
        name = f"{data}-{protocol}.md"
        (output / name).write_text(text)
        click.echo(text)
        if shown:
            of_models += [f"## [{data}, {protocol}]({name})\n", overview.models_table(shown)]
    for heading, text in (
        ("Pairs on the same users", overview.pairs_table(differences)),
        ("Random items in the histories", overview.noise_table(groups, MODELS_SIDE_BY_SIDE)),
        ("Of which training saw little", overview.seldom_table(groups, MODELS_SIDE_BY_SIDE)),
    ):
        if text.count("\n") > 2:
            of_models += [f"## {heading}\n", text]
    (output / "README.md").write_text("\n".join(of_models))


if __name__ == "__main__":
    main()
