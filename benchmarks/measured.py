"""What `benchmarks/accuracy.py` measured: runs by label, means over seeds, paired differences."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from scipy import stats

from bivrec_tf import metrics
from bivrec_tf.config import MODEL_BEFORE, ModelConfig, TrainingConfig
from bivrec_tf.evaluation import CUT_OFFS
from bivrec_tf.models import MODEL_NAMES

RESAMPLES = 10_000
_FURTHEST = max(CUT_OFFS)
_RANK_TYPE = np.min_scalar_type(_FURTHEST + 1)
_AT_ONCE = 200
_FEWEST_SEEDS = 3


class Interval(NamedTuple):
    """A mean with its 95 % interval; without one where there are too few values for any."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 4) -> str:
        """Returns `mean ± half width`."""
        half = (self.high - self.low) / 2
        return f"{self.mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


@dataclass(frozen=True)
class Runs:
    """Runs of one label on one data set under one protocol.

    Attributes:
      label: What was run.
      results: What `accuracy.py` wrote, by seed.
      ranks: Files with the ranks of every example up to 50, by seed, where they are kept.
    """

    label: str
    results: dict[int, dict[str, Any]]
    ranks: dict[int, Path]

    @property
    def example(self) -> dict[str, Any]:
        """The first result; runs of one label differ in their seed alone."""
        return next(iter(self.results.values()))

    @property
    def machine(self) -> str:
        """What the runs were made on, as text; empty where any of them does not say."""
        found = [run.get("machine") for run in self.results.values()]
        if not all(found):
            return ""
        rates = sorted({of["gflops_float32"] for of in found})
        threads = sorted({of["threads"] for of in found})
        kinds = sorted({"bfloat16" if of["multiplies_bfloat16"] else "float32" for of in found})
        return "; ".join(
            [f"{'/'.join(map(str, threads))} thread(s)", "/".join(kinds)]
            + [f"{'/'.join(map(str, rates))} GFLOP/s"]
        )

    @property
    def training_share(self) -> float:
        """Share of the users whom training saw."""
        return self.example.get("training_share", 1.0)

    @property
    def warm_start(self) -> str | None:
        """The exported model whose word on content training started from, if any."""
        return self.example.get("warm_start")

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.example["model"]

    def values(self, part: str, metric: str) -> list[float]:
        """Returns a metric of a part of the results, such as `test`, by seed."""
        return [found[part][metric] for found in self.results.values() if part in found]

    def having(self, parts: Collection[str]) -> "Runs":
        """Returns the runs that have one of the parts: what is compared to a part is of them."""
        found = {seed: run for seed, run in self.results.items() if run.keys() & set(parts)}
        return replace(self, results=found)

    @property
    def saved(self) -> "Runs":
        """The runs that noted when their weights were saved."""
        return self.having(["saved_seconds"])

    def interval(self, part: str, metric: str) -> Interval | None:
        """Returns the mean over seeds, none where no run has the part."""
        values = self.values(part, metric)
        return interval_over_seeds(values) if values else None


Groups = dict[tuple[str, str], dict[str, Runs]]
"""Runs by (data set, protocol) and label."""


def read_results(folder: Path) -> Groups:
    """Reads all results of a folder, and finds their ranks.

    Args:
      folder: Holds files DATA-LABEL-SEED.json; files that are no such results are passed over.

    Raises:
      click.ClickException: Runs of one label differ in more than their seed.
    """
    groups: Groups = {}
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text())
        if not isinstance(found, dict) or not {"model", "protocol", "test"} <= found.keys():
            continue
        label = label_of(file.stem, found)
        by_label = groups.setdefault((found["data"], found["protocol"]), {})
        runs = by_label.setdefault(label, Runs(label, {}, {}))
        for other in runs.results.values():
            if _identity(other) != _identity(found) or not _of_one_content(other, found):
                raise click.ClickException(
                    f"{file}: runs of {label!r} differ in configuration or data. Give what was "
                    "changed a label of its own (DATA-LABEL-SEED.json), or remove old results."
                )
        if found["seed"] in runs.results:
            raise click.ClickException(f"{file}: a second run of {label!r}, seed {found['seed']}")
        runs.results[found["seed"]] = found
        ranks = ranks_file(file)
        if ranks.exists():
            runs.ranks[found["seed"]] = ranks
    return groups


def ranks_file(result: Path) -> Path:
    """Returns where the ranks of a result stand: in the folder `ranks` beside it."""
    return result.parent / "ranks" / f"{result.stem}.npz"


def write_ranks(result: Path, ranks: Mapping[str, np.ndarray]) -> None:
    """Keeps the ranks of every example, as far as metrics look.

    Args:
      result: The file of the result.
      ranks: int `[examples, targets]` by part of the result, such as `test`; 0 without a target.
    """
    file = ranks_file(result)
    file.parent.mkdir(parents=True, exist_ok=True)
    # All that is not found by the longest list is alike, which makes small files.
    kept = {part: np.minimum(values, _FURTHEST + 1) for part, values in ranks.items()}
    np.savez_compressed(file, **{part: of.astype(_RANK_TYPE) for part, of in kept.items()})


def label_of(stem: str, found: Mapping[str, Any]) -> str:
    """Returns LABEL of a file name DATA-LABEL-SEED, or the model's name for any other name."""
    head, tail = f"{found['data']}-", f"-{found['seed']}"
    if stem.startswith(head) and stem.endswith(tail) and len(stem) > len(head) + len(tail):
        return stem[len(head) : -len(tail)]
    return str(found["model"])


# What training did before a setting of it existed, where that is not its default.
_TRAINING_BEFORE = {"calibrate_popularity": False}
# How a step is computed, which is to be as fast as the machine allows and changes but its rounding.
_OF_THE_MACHINE = ("softmax_dtype", "softmax_chunk_rows")
_PRODUCTS_OF_THE_MACHINE = ("auto", "float32", "bfloat16_products")


def settings_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `model` and `training` of a result, without what only the machine decides.

    A setting that a later revision added stands at what was there before it.
    """
    model, training = found["configuration"]["model"], dict(found["configuration"]["training"])
    if found["model"] in MODEL_NAMES:
        model = {**ModelConfig().model_dump(mode="json"), **MODEL_BEFORE, **model}
        if len(model["views"]) == 1:
            del model["multimodal_history"]
        defaults = TrainingConfig().model_dump(mode="json")
        loss = {**defaults["loss"], **training.get("loss", {})}
        training = {**defaults, **_TRAINING_BEFORE, **training, "loss": loss}
        for name in _OF_THE_MACHINE:
            loss.pop(name, None)
        if training["precision"] in _PRODUCTS_OF_THE_MACHINE:
            training["precision"] = "auto"
    training.pop("seed", None)
    return {"model": model, "training": training}


def _identity(found: Mapping[str, Any]) -> str:
    """What runs of one label have in common, as text."""
    same = ("model", "data_fingerprint", "warm_start", "parameters")
    parts = [*settings_of(found).values(), *(found.get(name) for name in same)]
    return json.dumps(parts, sort_keys=True)


def _of_one_content(*found: Mapping[str, Any]) -> bool:
    """Tells whether results are of the same content; those of before it was noted are of any."""
    return len({of.get("content_fingerprint") for of in found} - {None}) < 2


def interval_over_seeds(values: Sequence[float]) -> Interval:
    """Returns the mean of runs and its 95 % interval by Student's t, of three runs or more.

    Two runs have one too: twelve times as wide as they are apart, which tells nothing.
    """
    mean = float(np.mean(values))
    if len(values) < _FEWEST_SEEDS:
        return Interval(mean, math.nan, math.nan)
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(mean, mean - float(half), mean + float(half))


def per_user(ranks: np.ndarray, metric: str) -> np.ndarray:
    """Returns a metric, such as `ndcg_at_10`, of every example of ranks `[n, T]`."""
    name, _, k = metric.rpartition("_at_")
    every = (metrics.NDCG, metrics.Recall, metrics.HitRate, metrics.ReciprocalRank)
    kinds = {kind.prefix: kind for kind in every}
    return kinds[name](int(k)).per_example(ranks).numpy().astype(np.float64)


def paired(
    first: Runs,
    second: Runs,
    metric: str,
    parts: tuple[str, str] = ("test", "test"),
    seed: int = 0,
) -> Interval | None:
    """Compares two labels, each the mean of its seeds, on the same users.

    Args:
      first: Runs with ranks.
      second: Runs with ranks.
      metric: See `per_user`.
      parts: What of each is compared, such as `test_id_view`.
      seed: Of the bootstrap.

    Returns:
      The mean of first minus second and its interval; none where ranks of any run are missing.

    Raises:
      click.ClickException: They ranked other numbers of examples, or ranks are of another run than
        the result beside them.
    """
    means = []
    for runs, part in zip((first, second), parts, strict=True):
        if runs.ranks.keys() != runs.results.keys():
            return None
        seeds = []
        for seed_of_run, file in runs.ranks.items():
            with np.load(file, allow_pickle=False) as stored:
                if part not in stored:
                    return None
                values = per_user(stored[part].astype(np.int32), metric)
            measured = runs.results[seed_of_run][part][metric]
            if not math.isclose(values.mean(), measured, abs_tol=1e-5):
                raise click.ClickException(
                    f"{file}: ranks of another run than the result of {runs.label!r}. Run it again."
                )
            seeds.append(values)
        if len({len(values) for values in seeds}) > 1:
            raise click.ClickException(f"runs of {runs.label!r} ranked other examples")
        means.append(np.mean(seeds, axis=0))
    if len(means[0]) != len(means[1]):
        raise click.ClickException(f"{first.label!r} and {second.label!r} ranked other examples")
    return bootstrap(means[0] - means[1], seed)


def bootstrap(differences: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Returns the mean of users' differences with the percentile interval of a bootstrap."""
    generator, count = np.random.default_rng(seed), len(differences)
    means = []
    for begin in range(0, resamples, _AT_ONCE):
        drawn = generator.integers(count, size=(min(_AT_ONCE, resamples - begin), count))
        means.append(differences[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))
