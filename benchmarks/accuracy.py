"""Trains one model on one data set and measures it: full ranking, nothing sampled.

    .venv/bin/python -m benchmarks.accuracy --data ml-1m --model bivrec \
        --protocol leave_one_out --seed 0 --json benchmarks/results/ml-1m-bivrec-0.json

Hyper-parameters and protocol are those of `configs/DATA.yaml`, the pipeline's own; what a baseline
has of its own is in `benchmarks/configs/DATA.yaml`. `--config FILE` reads FILE in place of both,
and `--set training.epochs=3` changes one setting. Epochs are chosen on the validation split; the
test split is ranked once, at the end, with seen items filtered and without. `benchmarks/report.py`
makes tables of the results.

Transfer: `--export FOLDER` writes the trained model, `--warm-start FOLDER` starts another data
set's from what it makes of content, and `--share 0.1` shows training a tenth of the users.

Exit codes: 0 measured, 1 failed, 2 wrong usage, 4 skipped, since the data set is not there or has
no content for the model.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.machine import describe_machine, machine_rate
from benchmarks.measured import write_ranks
from benchmarks.prepared import encoders_of, prepare, sequence_config
from benchmarks.settings import DEFAULT_PROTOCOL, HERE, read_settings, validated
from bivrec_tf import data, training
from bivrec_tf.errors import BivrecError
from bivrec_tf.evaluation import CALIBRATION_EXAMPLES, RankingEvaluator, ranking_metrics
from bivrec_tf.export import export
from bivrec_tf.models import MODEL_NAMES, create_model, uses_content
from bivrec_tf.precision import product_dtype
from bivrec_tf.saved_model import read_saved_model
from bivrec_tf.transfer import warm_start
from components.idempotent_pusher.model_fingerprint import fingerprint
from components.sequence_builder.statistics import HEAD_SHARE, MIDDLE_SHARE

SKIPPED = 4
SHARE = click.FloatRange(0, 1, min_open=True)
PROTOCOLS = (DEFAULT_PROTOCOL, "user", "temporal")


def with_noise(prepared, share: float, seed: int, insert: bool = False):
    """Replaces a share of the items of every test history by random ones, or inserts as many.

    Random items are trained ones, and none of the example's targets.
    """
    generator = np.random.default_rng(seed)
    trained = prepared.catalogue.num_trained
    noisy = []
    for user, history, target in prepared.held_out["test"]:
        hit = generator.random(len(history)) < share
        # Of the items without the targets: steps over each of them, the lowest first.
        targets = np.unique(target[target > 0])
        random = generator.integers(1, trained + 1 - len(targets), len(history))
        for row in targets:
            random += random >= row
        if insert:
            changed = np.insert(history, np.flatnonzero(hit), random[hit])
        else:
            changed = np.where(hit, random, history)
        noisy.append((user, changed.astype(np.int32), target))
    return dataclasses.replace(prepared, held_out={**prepared.held_out, "test": noisy})


def summary(ranks: np.ndarray) -> dict[str, float]:
    """The product's metrics of ranks `[n, T]`."""
    values = {}
    for metric in ranking_metrics():
        metric.update_state(ranks)
        values[metric.name] = float(metric.result())
    return values


def slices(prepared, ranks: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics by kind of user and by kind of target; ranks `[n, T]` of the test split.

    A slice of targets counts those targets alone, of the examples that have any. `head`, `middle`
    and `tail` are those of `features.TARGET_POPULARITIES`.
    """
    counts = prepared.catalogue.counts
    lengths = np.array([len(history) for _, history, _ in prepared.held_out["test"]])
    targets = np.zeros(ranks.shape, np.int64)
    for row, (_, _, target) in zip(targets, prepared.held_out["test"], strict=True):
        row[: len(target)] = target
    # Rows are in the order of counts: before an item stand the more popular ones.
    before = np.concatenate([[0.0], np.cumsum(counts)[:-1]]) / counts.sum()
    share, known = before[np.maximum(targets, 0)], counts[np.maximum(targets, 0)]
    every = targets != 0
    groups = {
        "users with at most 5 interactions": every & (lengths <= 5)[:, np.newaxis],
        "users with 6 to 20": every & ((lengths > 5) & (lengths <= 20))[:, np.newaxis],
        "users with 21 to 50": every & ((lengths > 20) & (lengths <= 50))[:, np.newaxis],
        "users with more than 50": every & (lengths > 50)[:, np.newaxis],
        "head targets": (known > 0) & (share < HEAD_SHARE),
        "middle targets": (known > 0) & (share >= HEAD_SHARE) & (share < MIDDLE_SHARE),
        "tail targets": (known > 0) & (share >= MIDDLE_SHARE),
        "targets with at most 5 in training": (known > 0) & (known <= 5),
        "targets never trained": every & (known == 0),
    }
    found = {}
    for name, chosen in groups.items():
        examples = chosen.any(axis=1)
        if examples.any():
            of_group = np.where(chosen, ranks, 0)[examples]
            found[name] = {"examples": int(examples.sum()), **summary(of_group)}
    return found


def joined(parts) -> np.ndarray:
    """Joins ranks `[n, T]` of batches, whose `T` differ."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, [[0, 0], [0, width - part.shape[1]]]) for part in parts])


@click.command(help=__doc__)
@click.option("--data", "name", required=True, help="Folder below --root, such as ml-1m.")
@click.option("--model", "model_name", required=True, type=click.Choice(MODEL_NAMES))
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help=f"That of the configuration, or {DEFAULT_PROTOCOL} where it has none.",
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="In place of configs/DATA.yaml and of what the model has of its own.",
)
@click.option("--set", "changes", multiple=True, help="As in training.epochs=3.")
@click.option(
    "--json",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the result goes; ranks of every example, for paired tests, into `ranks` beside it.",
)
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
@click.option("--noise", multiple=True, type=SHARE, help="Share of test items made random, too.")
@click.option("--insert", multiple=True, type=SHARE, help="Share of random items inserted, too.")
@click.option(
    "--share",
    "training_share",
    default=1.0,
    show_default=True,
    type=SHARE,
    help="Of the users, shown to training.",
)
@click.option(
    "--warm-start",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What --export wrote of another data set's model.",
)
@click.option("--export", "export_to", type=click.Path(path_type=Path), help="A folder, new.")
@click.option("--threads", default=0, help="Threads of an operation; 0: all cores.")
def main(
    name,
    model_name,
    protocol,
    seed,
    config_file,
    changes,
    out,
    root,
    cache,
    noise,
    insert,
    training_share,
    source,
    export_to,
    threads,
) -> None:
    """Trains, evaluates, writes."""
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    settings = read_settings(name, changes, model_name, config_file)
    config, options = validated(settings, seed)
    protocol = protocol or settings.get("protocol", DEFAULT_PROTOCOL)
    click.echo(f"{model_name} on {name}, {protocol}, seed {seed}: {settings}", err=True)
    machine = describe_machine(threads, machine_rate(0.3, products=1))
    sequences = sequence_config(protocol, config.max_history)
    try:
        with_content = uses_content(model_name)
        prepared = prepare(root / name, sequences, cache, with_content, training_share)
        data_ready = time.perf_counter()
        tf_keras.utils.set_random_seed(seed)
        training.set_precision(options)
        with training.device_strategy(options).scope():
            model = create_model(
                model_name,
                config,
                prepared.catalogue,
                options.loss,
                options.positions_per_sequence,
            )
    except BivrecError as error:
        click.echo(f"skipped: {error}", err=True)
        sys.exit(SKIPPED)
    if source is not None:
        try:
            warm_start(model, read_saved_model(source), encoders_of(prepared.catalogue))
        except BivrecError as error:
            raise click.ClickException(f"--warm-start {source}: {error}") from error
    batches = data.training_batches(
        prepared.training_windows(), config.max_history, options.batch_size, seed
    )
    validation = prepared.batches("validation", most=options.max_evaluation_examples)
    calibration = prepared.batches("validation", most=CALIBRATION_EXAMPLES)

    curve: list[tuple[float, float, float]] = []

    evaluation_seconds: list[float] = []

    class Curve(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            # What `fit` did since the last step: it ranked the catalogue and kept the weights.
            evaluation_seconds.append(time.perf_counter() - self.began - logs["seconds"])
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
        try:
            training.fit(
                model,
                batches,
                validation,
                options,
                callbacks=[Curve()],
                verbose=0,
                calibration_data=calibration,
            )
        except BivrecError as error:
            raise click.ClickException(str(error)) from error
    elapsed = time.perf_counter() - began
    spent = curve[-1][0] if curve else 0.0
    result = {
        "data": name,
        "model": model_name,
        "protocol": protocol,
        "seed": seed,
        "training_share": training_share,
        "warm_start": None if source is None else source.name,
        "warm_start_fingerprint": None if source is None else fingerprint(str(source))[:16],
        "configuration": {
            "model": model.config.model_dump(mode="json"),
            "training": options.model_dump(mode="json"),
        },
        "data_fingerprint": prepared.fingerprint,
        "content_fingerprint": prepared.content_fingerprint,
        "machine": machine,
        "revision": subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
        ).stdout.strip(),
        "items": prepared.catalogue.num_trained,
        "cold_items": prepared.catalogue.num_items - prepared.catalogue.num_trained,
        "products": product_dtype(options.loss.softmax_dtype),
        "windows": len(prepared.windows),
        "training_targets": int(prepared.catalogue.counts.sum()),
        "examples": {split: len(found) for split, found in prepared.held_out.items()},
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "training_seconds": spent,
        "seconds_with_evaluation": elapsed,
        "evaluation_seconds": evaluation_seconds,
        "windows_per_second": len(prepared.windows) * len(curve) / max(spent, 1e-9),
        "curve": curve,
        "id_weight": float(model.id_weight.numpy()),
        "popularity_weight": float(model.popularity_weight.numpy()),
        "cold_offset": float(model.cold_offset.numpy()),
    }
    if export_to is not None:
        in_use = training.in_float32(model)
        export(in_use, export_to, encoders=encoders_of(prepared.catalogue))
        result["saved_seconds"] = time.perf_counter() - data_ready
    evaluators = {"": RankingEvaluator(model), "_unfiltered": RankingEvaluator(model, False)}
    held_out = {split: prepared.batches(split) for split in ("validation", "test")}
    all_ranks = {}
    for split, suffix in (("validation", ""), ("test", ""), ("test", "_unfiltered")):
        label = f"{split}{suffix}"
        all_ranks[label] = joined(evaluators[suffix].ranks(held_out[split]))
        result[label] = summary(all_ranks[label])
    result["coverage"] = evaluators[""].coverage(held_out["test"])
    result["slices"] = slices(prepared, all_ranks["test"])
    for kind, shares in (("noise", noise), ("insert", insert)):
        for share in shares:
            noisy = with_noise(prepared, share, seed, kind == "insert").batches("test")
            label = f"test_{kind}_{share:g}"
            all_ranks[label] = joined(evaluators[""].ranks(noisy))
            result[label] = summary(all_ranks[label])
    if model.has_both_views:
        for view, weight in (("id_view", 1.0), ("mm_view", 0.0)):
            # As a model of its own would be calibrated. Last: the model is not what it was.
            model.id_weight.assign(weight)
            if options.calibrate_popularity:
                evaluators[""].calibrate_popularity(calibration)
            result[f"{view}_popularity_weight"] = float(model.popularity_weight.numpy())
            all_ranks[f"test_{view}"] = joined(evaluators[""].ranks(held_out["test"]))
            result[f"test_{view}"] = summary(all_ranks[f"test_{view}"])
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))
    write_ranks(out, all_ranks)
    for label in ("validation", "test", "test_id_view", "test_mm_view", "test_unfiltered"):
        if label in result:
            shown = {m: round(result[label][m], 4) for m in ("ndcg_at_10", "hit_rate_at_10")}
            click.echo(f"{label}: {shown} NDCG@20 {result[label]['ndcg_at_20']:.4f}")


if __name__ == "__main__":
    main()
