"""Trains one model on one data set and measures it: full ranking, nothing sampled.

    .venv/bin/python -m benchmarks.accuracy --data ml-1m --model bivrec \
        --protocol leave_one_out --seed 0 --json benchmarks/results/ml-1m-bivrec-0.json

Hyper-parameters are those of `benchmarks/configs/DATA-MODEL.yaml`, or of `--config`; `--set
training.epochs=3` changes one. Epochs are chosen on the validation split; the test split is ranked
once, at the end, with seen items filtered and without. `benchmarks/report.py` makes tables of the
results.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import yaml

import bivrec_tf  # noqa: F401 - selects Keras 2

MODELS = ("popularity", "sasrec", "comirec_sa", "pure_id", "pure_mm", "bivrec")
HERE = Path(__file__).parent


def read_settings(path: Path | None, changes: tuple[str, ...]) -> dict:
    """Reads a configuration and applies `a.b=value` to it."""
    settings = yaml.safe_load(path.read_text()) if path else {}
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator:
            raise click.UsageError(f"--set {change}: expected name=value, as in model.dimension=64")
        target = settings
        *folders, last = name.split(".")
        for folder in folders:
            target = target.setdefault(folder, {})
        target[last] = yaml.safe_load(value)
    return settings


def build(name: str, config, catalogue, training):
    """Makes the model of a name."""
    from bivrec_tf import models

    kinds = {
        "popularity": (models.Popularity, ("id",)),
        "sasrec": (models.SASRec, ("id",)),
        "comirec_sa": (models.ComiRecSA, ("id",)),
        "pure_id": (models.BiVRec, ("id",)),
        "pure_mm": (models.BiVRec, ("mm",)),
        "bivrec": (models.BiVRec, ("id", "mm")),
    }
    kind, views = kinds[name]
    config = config.model_copy(update={"views": views})
    return kind(config, catalogue, training.loss, training.positions_per_sequence)


def with_noise(prepared, share: float, seed: int):
    """Replaces a share of the items of every test history by random ones."""
    import dataclasses

    generator = np.random.default_rng(seed)
    trained = prepared.catalogue.num_trained
    noisy = []
    for user, history, target in prepared.held_out["test"]:
        hit = generator.random(len(history)) < share
        random = generator.integers(1, trained + 1, len(history))
        noisy.append((user, np.where(hit, random, history).astype(np.int32), target))
    return dataclasses.replace(prepared, held_out={**prepared.held_out, "test": noisy})


def summary(ranks: np.ndarray) -> dict[str, float]:
    """The product's metrics of ranks `[n, T]`."""
    from bivrec_tf.evaluation import ranking_metrics

    values = {}
    for metric in ranking_metrics():
        metric.update_state(ranks)
        values[metric.name] = float(metric.result())
    return values


def slices(prepared, ranks: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics by kind of user and of target (of examples with one target)."""
    counts = prepared.catalogue.counts
    lengths = np.array([len(history) for _, history, _ in prepared.held_out["test"]])
    first = np.array([target[0] for _, _, target in prepared.held_out["test"]])
    of_target = np.where(first > 0, counts[np.maximum(first, 0)], 0)
    order = np.sort(counts[1:])[::-1]
    share = np.cumsum(order) / order.sum()
    head, middle = order[np.searchsorted(share, 0.5)], order[np.searchsorted(share, 0.8)]
    groups = {
        "users with at most 5 interactions": lengths <= 5,
        "users with 6 to 20": (lengths > 5) & (lengths <= 20),
        "users with more than 20": lengths > 20,
        "head targets": of_target >= head,
        "middle targets": (of_target < head) & (of_target >= middle),
        "tail targets": (of_target < middle) & (of_target > 0),
        "targets with at most 5 in training": (of_target <= 5) & (of_target > 0),
        "targets never trained": of_target == 0,
    }
    return {
        name: {"examples": int(chosen.sum()), **summary(ranks[chosen])}
        for name, chosen in groups.items()
        if chosen.any()
    }


@click.command(help=__doc__)
@click.option("--data", "name", required=True, help="Folder below --root, such as ml-1m.")
@click.option("--model", "model_name", required=True, type=click.Choice(MODELS))
@click.option(
    "--protocol",
    default="leave_one_out",
    type=click.Choice(["leave_one_out", "user", "temporal"]),
    show_default=True,
)
@click.option("--seed", default=0, show_default=True)
@click.option("--config", "config_file", type=click.Path(exists=True, path_type=Path))
@click.option("--set", "changes", multiple=True, help="As in training.epochs=3.")
@click.option("--json", "out", required=True, type=click.Path(path_type=Path))
@click.option(
    "--root",
    default=str(HERE.parent.parent / "shared" / "data"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the data sets are.",
)
@click.option(
    "--cache",
    default=str(HERE.parent / "output" / "benchmarks" / "prepared"),
    show_default=True,
    type=click.Path(path_type=Path),
)
@click.option("--noise", multiple=True, type=float, help="Also rank histories with such noise.")
@click.option("--threads", default=0, help="Threads of an operation; 0: all cores.")
def main(
    name, model_name, protocol, seed, config_file, changes, out, root, cache, noise, threads
) -> None:
    """Trains, evaluates, writes."""
    import tensorflow as tf
    import tf_keras

    from benchmarks.prepared import prepare
    from bivrec_tf import data, training
    from bivrec_tf.config import ModelConfig, TrainingConfig
    from bivrec_tf.errors import BivrecError
    from bivrec_tf.evaluation import RankingEvaluator
    from components.sequence_builder.sequence_config import SequenceConfig

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    default = HERE / "configs" / f"{name}-{model_name}.yaml"
    if config_file is None and default.exists():
        config_file = default
    settings = read_settings(config_file, changes)
    config = ModelConfig.model_validate(settings.get("model", {}))
    options = TrainingConfig.model_validate({**settings.get("training", {}), "seed": seed})
    sequences = SequenceConfig(
        protocol=protocol, max_history=config.max_history, window_overlap=1, max_seen=2048
    )
    try:
        content = model_name in ("pure_mm", "bivrec")
        prepared = prepare(root / name, sequences, cache, content)
    except BivrecError as error:
        click.echo(f"skipped: {error}", err=True)
        sys.exit(4)
    tf_keras.utils.set_random_seed(seed)
    model = build(model_name, config, prepared.catalogue, options)
    batches = data.training_batches(
        prepared.training_windows(), config.max_history, options.batch_size, seed
    )
    validation = prepared.batches("validation", 256, options.max_evaluation_examples)

    curve: list[tuple[float, float, float]] = []

    class Curve(tf_keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            spent = (curve[-1][0] if curve else 0.0) + logs["seconds"]
            curve.append((spent, float(logs["loss"]), logs["val_ndcg_at_10"]))
            click.echo(
                f"epoch {epoch + 1}: {spent:.0f} s, loss {curve[-1][1]:.4f}, "
                f"validation NDCG@10 {curve[-1][2]:.4f}",
                err=True,
            )

    began = time.perf_counter()
    if model_name == "popularity":
        model.build_variables()
    else:
        training.fit(model, batches, validation, options, callbacks=[Curve()], verbose=0)
    elapsed = time.perf_counter() - began
    spent = curve[-1][0] if curve else 0.0
    result = {
        "data": name,
        "model": model_name,
        "protocol": protocol,
        "seed": seed,
        "configuration": {
            "model": model.config.model_dump(mode="json"),
            "training": options.model_dump(mode="json"),
        },
        "data_fingerprint": prepared.fingerprint,
        "revision": subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
        ).stdout.strip(),
        "items": prepared.catalogue.num_trained,
        "cold_items": prepared.catalogue.num_items - prepared.catalogue.num_trained,
        "windows": len(prepared.windows),
        "training_targets": int(prepared.catalogue.counts.sum()),
        "examples": {split: len(found) for split, found in prepared.held_out.items()},
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "training_seconds": spent,
        "seconds_with_evaluation": elapsed,
        "windows_per_second": len(prepared.windows) * len(curve) / max(spent, 1e-9),
        "curve": curve,
        "id_weight": float(model.id_weight),
        "cold_offset": float(model.cold_offset),
    }
    weights = {"": None}
    if model.has_both_views:
        weights |= {"_id_view": 1.0, "_mm_view": 0.0}
    evaluators = {"": RankingEvaluator(model), "_unfiltered": RankingEvaluator(model, False)}
    all_ranks = {}
    for split in ("validation", "test"):
        held_out = prepared.batches(split)
        for suffix, evaluator in evaluators.items():
            for view, weight in weights.items():
                label = f"{split}{view}{suffix}"
                parts = evaluator.ranks(held_out, weight)
                width = max(part.shape[1] for part in parts)
                ranks = np.concatenate(
                    [np.pad(part, [[0, 0], [0, width - part.shape[1]]]) for part in parts]
                )
                result[label] = summary(ranks)
                all_ranks[label] = ranks
    result["coverage"] = evaluators[""].evaluate(prepared.batches("test"), coverage=True)
    result["slices"] = slices(prepared, all_ranks["test"])
    for share in noise:
        noisy = with_noise(prepared, share, seed).batches("test")
        parts = evaluators[""].ranks(noisy)
        width = max(part.shape[1] for part in parts)
        result[f"test_noise_{share:g}"] = summary(
            np.concatenate([np.pad(p, [[0, 0], [0, width - p.shape[1]]]) for p in parts])
        )
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))
    folder = HERE.parent / "output" / "benchmarks" / "ranks"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{out.stem}.npz", **all_ranks)
    for label in ("validation", "test", "test_id_view", "test_mm_view", "test_unfiltered"):
        if label in result:
            shown = {m: round(result[label][m], 4) for m in ("ndcg_at_10", "hit_rate_at_10")}
            click.echo(f"{label}: {shown} NDCG@20 {result[label]['ndcg_at_20']:.4f}")


if __name__ == "__main__":
    main()
