"""Measures what ranking the whole catalogue for every user costs, beside an epoch of training.

    .venv/bin/python -m benchmarks.evaluation_cost --json benchmarks/results/evaluation-cost.json

Both are of one model, in one run: an epoch as its steps times the mean step of batches drawn evenly
from it, and the evaluation that `fit` makes after it, of all validation users. Memory is what the
process grows by in evaluations of all users once, twice and four times over, after a first one,
with batches that are made anew and not kept. Beside it stands what no evaluation of these histories
in float32 can fall short of: their matrix products at the rate of large ones on this machine.
"""

import json
import time
from pathlib import Path

import click
import numpy as np
import tensorflow as tf

from benchmarks.machine import describe_machine, machine_rate
from benchmarks.prepared import prepare, sequence_config
from benchmarks.settings import HERE, read_settings, validated
from bivrec_tf import data, training
from bivrec_tf.config import ModelConfig
from bivrec_tf.evaluation import RankingEvaluator
from bivrec_tf.models import create_model, uses_content

STEPS = 40
COPIES = (1, 2, 4)


def resident_mib() -> float:
    """Returns the memory of this process, now."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def seconds_to_evaluate(
    evaluator: RankingEvaluator, batches: tf.data.Dataset, copies: int = 1
) -> float:
    """Evaluates batches, several times over, and returns the seconds that it took."""
    began = time.perf_counter()
    evaluator.evaluate(batches.repeat(copies))
    return time.perf_counter() - began


def inference_arithmetic(lengths: np.ndarray, config: ModelConfig) -> float:
    """Returns the floating-point operations of the products that infer histories of such lengths.

    Every context block but the last is whole; of the last, and of the attentions, all tokens' keys
    and values are needed, and the rest at one position alone (`docs/model.md`, section 2).
    """
    width, whole_blocks = config.dimension, config.context_blocks - 1
    tokens, pairs = float(lengths.sum()), float(np.square(lengths, dtype=float).sum())
    clusters = int(config.num_interests > 1)
    of_tokens = (12 * whole_blocks + 3 + clusters) * tokens * width**2
    of_pairs = (2 * whole_blocks + clusters) * pairs * width
    return 2.0 * len(config.views) * (of_tokens + of_pairs)


@click.command(help=__doc__)
@click.option("--data", "name", default="ml-1m", show_default=True)
@click.option("--model", "models", multiple=True, default=("pure_id", "bivrec"), show_default=True)
@click.option(
    "--root",
    default=str(HERE.parent.parent / "shared" / "data"),
    show_default=True,
    type=click.Path(path_type=Path),
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where the figures go.")
def main(name, models, root, out) -> None:
    """Measures and prints."""
    cache = HERE.parent / "output" / "benchmarks" / "prepared"
    rate = machine_rate(1.0, products=2)
    click.echo(f"machine: {rate / 1e9:.0f} GFLOP/s in float32")
    found = []
    for model_name in models:
        config, options = validated(read_settings(name, model=model_name), seed=0)
        sequences = sequence_config("leave_one_out", config.max_history)
        prepared = prepare(root / name, sequences, cache, uses_content(model_name))
        training.set_precision(options)
        per_sequence = options.positions_per_sequence
        model = create_model(model_name, config, prepared.catalogue, options.loss, per_sequence)
        windows = prepared.training_windows()
        batches = data.training_batches(windows, config.max_history, options.batch_size, 0)
        steps = sum(1 for _ in batches)
        model.compile(optimizer=training.make_optimizer(options, steps))
        model.build_variables()
        step = tf.function(model.train_step, reduce_retracing=True)
        chosen = list(batches.shard(max(1, steps // STEPS), 0).take(STEPS))
        for batch in chosen[:5]:
            step(batch)
        spent = []
        for batch in chosen:
            began = time.perf_counter()
            step(batch)["loss"].numpy()
            spent.append(time.perf_counter() - began)
        epoch = steps * float(np.mean(spent))

        evaluator = RankingEvaluator(model)
        held_out = prepared.batches("validation")
        users = len(prepared.held_out["validation"])
        evaluator.evaluate(held_out.take(2))
        row = {"model": model_name, "steps": steps, "epoch_seconds": epoch, "users": users}
        row["first_seconds"] = seconds_to_evaluate(evaluator, held_out)
        row["seconds"] = seconds_to_evaluate(evaluator, held_out)
        for copies in COPIES:
            before = resident_mib()
            seconds_to_evaluate(evaluator, prepared.batches("validation", keep=False), copies)
            row[f"added_mib_{copies}"] = resident_mib() - before
        histories = [history for _, history, _ in prepared.held_out["validation"]]
        lengths = np.minimum([len(history) for history in histories], config.max_history)
        row["product_seconds"] = inference_arithmetic(lengths, model.config) / rate
        found.append(row)
        added = ", ".join(f"{row[f'added_mib_{copies}']:+.0f}" for copies in COPIES)
        click.echo(
            f"{model_name}: epoch {epoch:.1f} s, evaluation of {users} users "
            f"{row['seconds']:.1f} s = {row['seconds'] / epoch:.1%}, the first, which reads the "
            f"data, {row['first_seconds']:.1f} s; memory of {users:,}, {2 * users:,} and "
            f"{4 * users:,} users {added} MiB; the products alone {row['product_seconds']:.1f} s = "
            f"{row['product_seconds'] / epoch:.1%}"
        )
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        machine = describe_machine(0, rate)
        text = {"data": name, "machine_flops": rate, "machine": machine, "measured": found}
        out.write_text(json.dumps(text, indent=1))


if __name__ == "__main__":
    main()
