"""Hands a split to a model of another project, and measures what it recommends.

    .venv/bin/python -m benchmarks.peers.exchange write --data ml-1m --folder FOLDER
    .venv/bin/python -m benchmarks.peers.exchange read --folder FOLDER --json OUT

See `benchmarks/peers/README.md`.
"""

import json
from pathlib import Path

import click
import numpy as np
import pandas as pd

from benchmarks.accuracy import slices, summary
from benchmarks.measured import write_ranks
from benchmarks.prepared import Prepared, prepare, sequence_config
from benchmarks.settings import HERE, read_settings, validated
from bivrec_tf.evaluation import CUT_OFFS

NEVER = np.iinfo(np.int32).max


@click.group(help=__doc__)
def main() -> None:
    """Two directions."""


cache_option = click.option(
    "--cache",
    default=str(HERE.parent / "output" / "benchmarks" / "prepared"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where splits are kept.",
)


def _prepared(name: str, max_history: int, root: Path, cache: Path) -> Prepared:
    config = sequence_config("leave_one_out", max_history)
    return prepare(root / name, config, cache, content=False)


@main.command()
@click.option("--data", "name", required=True, help="Folder below --root, such as ml-1m.")
@click.option(
    "--max-history",
    type=int,
    help="Of the split; without it that of configs/DATA.yaml, as benchmarks.accuracy has it.",
)
@click.option(
    "--root",
    default=str(HERE.parent.parent / "shared" / "data"),
    show_default=True,
    type=click.Path(path_type=Path),
)
@click.option("--folder", required=True, type=click.Path(path_type=Path))
@cache_option
def write(name: str, max_history: int | None, root: Path, folder: Path, cache: Path) -> None:
    """Writes `train.csv` (user, item, position) and `test.csv`, histories of test users."""
    if max_history is None:
        max_history = validated(read_settings(name), seed=0)[0].max_history
    prepared = _prepared(name, max_history, root, cache)
    tables = {
        # A validation history is what training saw of a user.
        "train": prepared.held_out["validation"],
        "test": prepared.held_out["test"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for table, examples in tables.items():
        rows = [
            (user, int(item), place)
            for user, history, _ in examples
            for place, item in enumerate(history)
            if item > 0
        ]
        frame = pd.DataFrame(rows, columns=["user", "item", "position"])
        frame.to_csv(folder / f"{table}.csv", index=False)
    facts = {"data": name, "max_history": max_history, "root": str(root)}
    (folder / "split.json").write_text(json.dumps(facts))


@main.command()
@click.option("--folder", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "out", required=True, type=click.Path(path_type=Path))
@cache_option
def read(folder: Path, out: Path, cache: Path) -> None:
    """Measures `recommended.csv` (user, item, rank) by the project's own metrics."""
    facts = json.loads((folder / "split.json").read_text())
    prepared = _prepared(facts["data"], facts["max_history"], Path(facts["root"]), cache)
    ranks = _ranks(folder / "recommended.csv", prepared.held_out["test"])
    run = json.loads((folder / "run.json").read_text())
    curve, epochs = [], run["configuration"]["training"]["epochs"]
    for epoch, seconds in run.pop("points"):
        found = _ranks(folder / f"validation-{epoch}.csv", prepared.held_out["validation"])
        validation = summary(found)
        curve.append([seconds, None, validation["ndcg_at_10"]])
        if epoch == epochs:
            run["validation"] = validation
    result = {
        "data": facts["data"],
        "protocol": "leave_one_out",
        "data_fingerprint": prepared.fingerprint,
        "items": prepared.catalogue.num_trained,
        "training_targets": int(prepared.catalogue.counts.sum()),
        "examples": {split: len(found) for split, found in prepared.held_out.items()},
        "epochs": epochs,
        # A window of a peer is all of a user.
        "windows_per_second": epochs
        * len(prepared.held_out["validation"])
        / run["training_seconds"],
        "curve": curve,
        **run,
        "test": summary(ranks),
        "slices": slices(prepared, ranks),
    }
    write_ranks(out, {"test": ranks})
    out.write_text(json.dumps(result, indent=1))
    shown = {name: round(result["test"][name], 4) for name in ("ndcg_at_10", "hit_rate_at_10")}
    click.echo(f"test: {shown}")


def _ranks(file: Path, examples: list) -> np.ndarray:
    """Ranks `[n, 1]` of the examples' targets in a table of recommendations."""
    lists = pd.read_csv(file)
    deepest = int(lists["rank"].max())
    if deepest < max(CUT_OFFS):
        raise click.ClickException(f"{file}: lists of {deepest}, expected {max(CUT_OFFS)}")
    columns = lists[["user", "item", "rank"]]
    place = {(user, item): rank for user, item, rank in columns.itertuples(index=False)}
    return np.array([[place.get((user, int(target[0])), NEVER)] for user, _, target in examples])


if __name__ == "__main__":
    main()
