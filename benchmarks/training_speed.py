"""Measures the training step: sequences a second, and its share of what the machine can multiply.

    .venv/bin/python -m benchmarks.training_speed --json benchmarks/results/training-speed.json

The rate of the machine is measured in the same run, by products of large float32 matrices. The
share of a layer, or of the whole step, is the matrix arithmetic that it needs, forward and
backward, over its time, over that rate; what is not a matrix product counts as nothing, so that no
step reaches 100 %. The rate is of all cores: with a thread for an operation, a layer by itself,
whose operations follow one another, keeps one core busy and has a share of at most that core's. In
bfloat16 the machine may be faster than its float32 rate.

Sizes are those of the goal: 7,050 items with 1,664 content values, histories of 20, width 64,
4 interests, scales 1, 2 and 4, one context block a view, the softmax over the whole catalogue, and
both views trained, one target a sequence. Interests are asked for at two positions, the target's
and the window's last.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks.machine import describe_machine, machine_rate, seconds_of
from bivrec_tf import layers
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import LossConfig, ModelConfig, TrainingConfig
from bivrec_tf.losses import CatalogueSoftmax, FusedViewsSoftmax
from bivrec_tf.models import create_model
from bivrec_tf.models.sequential_recommender import IS_TARGET, SEQUENCE, USER
from bivrec_tf.precision import BFloat16Products, set_policy
from bivrec_tf.training import make_optimizer

ITEMS, CONTENT, COMPONENTS, HISTORY, WIDTH, INTERESTS = 7_050, 1_664, 256, 20, 64, 4
POSITIONS, HEADS = 2, 2


def arithmetic(batch: int) -> dict[str, float]:
    """Returns the operations of matrix products that parts need, forward and backward."""
    tokens, square = batch * HISTORY, WIDTH * WIDTH
    pairs, pool = tokens * HISTORY * WIDTH, tokens * INTERESTS * WIDTH
    asked = batch * POSITIONS
    forward = {
        # Few positions are asked for: no token has a key or a value.
        "context_block": 12 * asked * square + 2 * asked * HEADS * HISTORY * WIDTH,
        "gaussian_attention": tokens * square + (2 + POSITIONS) * pool,
        "cluster_attention": tokens * square
        + pairs
        + tokens * HISTORY * INTERESTS
        + (1 + POSITIONS) * pool,
        "catalogue_softmax": batch * INTERESTS * ITEMS * WIDTH,
    }
    # Two operations a multiply-add; backward costs two products for each.
    needed = {name: 6.0 * value for name, value in forward.items()}
    # Content is whitened before training to at most 256 values, and has no gradient itself.
    needed["content_projection"] = 4.0 * ITEMS * COMPONENTS * WIDTH + 6.0 * ITEMS * square
    of_views = sum(needed[name] for name in forward)
    needed["whole step"] = 2 * of_views + needed["content_projection"]
    # The task of both views' scores needs no products but theirs.
    needed["fused_views_softmax"] = 2 * needed["catalogue_softmax"]
    needed["whole step, common task"] = needed["whole step"]
    return needed


def parts(batch: int, dtype: str) -> dict[str, Callable]:
    """Returns forward and backward of the layers, each compiled as in the step."""
    tokens = tf.random.normal([batch, HISTORY, WIDTH])
    mask = tf.ones([batch, HISTORY], tf.bool)
    target = tf.random.uniform([batch, POSITIONS - 1], maxval=HISTORY, dtype=tf.int32)
    asked = tf.concat([target, tf.fill([batch, 1], HISTORY - 1)], axis=1)
    queries = tf.random.normal([batch, INTERESTS, WIDTH])
    items = tf.random.normal([ITEMS, WIDTH])
    targets = tf.random.uniform([batch], maxval=ITEMS, dtype=tf.int32)
    raw = {"content": tf.random.normal([ITEMS, CONTENT])}
    present = {"content": tf.ones([ITEMS], tf.bool)}

    gaussian = layers.GaussianAttention(INTERESTS, HISTORY)
    cluster = layers.ClusterAttention()
    block = layers.ContextBlock(HEADS, HISTORY, 0.2)
    patching = layers.MultiScalePatching((1, 2, 4), 0.2)
    projection = layers.ContentProjection({"content": CONTENT}, WIDTH)
    projection.build(None)
    projection.adapt(raw, present)
    whitened = projection.whiten(raw)
    assert whitened["content"].shape == (ITEMS, COMPONENTS)
    softmax = CatalogueSoftmax(ModelConfig().readout, dtype=dtype)
    fused = FusedViewsSoftmax()
    pool = tf.nest.map_structure(tf.stop_gradient, gaussian(tokens, mask, asked, training=True))

    def backward(inputs, forward):
        def run():
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = forward()
                squares = [tf.square(tf.cast(part, tf.float32)) for part in outputs]
                total = tf.add_n([tf.reduce_sum(square) for square in squares])
            watched = tape.watched_variables()
            return tape.gradient(total, [*inputs, *watched])

        compiled = tf.function(run)
        return lambda: compiled()[0].numpy()

    own_norm, keras_norm = (
        layers.LayerNormalization(),
        tf_keras.layers.LayerNormalization(epsilon=1e-6),
    )
    own_dropout, keras_dropout = layers.Dropout(0.2), tf_keras.layers.Dropout(0.2)
    return {
        "layer_normalization": backward([tokens], lambda: [own_norm(tokens)]),
        "layer_normalization, Keras": backward([tokens], lambda: [keras_norm(tokens)]),
        "dropout": backward([tokens], lambda: [own_dropout(tokens, training=True)]),
        "dropout, Keras": backward([tokens], lambda: [keras_dropout(tokens, training=True)]),
        "multi_scale_patching": backward([tokens], lambda: [patching(tokens, mask, training=True)]),
        "context_block": backward([tokens], lambda: [block(tokens, mask, asked, training=True)]),
        "gaussian_attention": backward(
            [tokens], lambda: [gaussian(tokens, mask, asked, training=True).pooled]
        ),
        "cluster_attention": backward(
            [tokens], lambda: cluster(tokens, mask, asked, pool, training=True)
        ),
        "content_projection": backward([], lambda: [projection(whitened, present, whitened=True)]),
        "catalogue_softmax": backward([queries, items], lambda: [softmax(queries, items, targets)]),
        "fused_views_softmax": backward(
            [queries, items],
            lambda: [fused((queries, -queries), (items, items[::-1]), targets, (1.0, 1.0, 1.0))[0]],
        ),
    }


def whole_step(batch: int, dtype: str, fusion_weight: float = 0.0) -> Callable:
    """Returns the training step of both views as `fit` runs it, perhaps with their common task."""
    generator = np.random.default_rng(0)
    content = generator.normal(size=[ITEMS, CONTENT]).astype(np.float16)
    names = [str(row) for row in range(ITEMS)]
    features = [ItemFeatures(name, {"t": content[row]}) for row, name in enumerate(names)]
    catalogue = ItemCatalogue.build(names, [1] * ITEMS, features)
    config = ModelConfig(dimension=WIDTH, num_interests=INTERESTS, max_history=HISTORY)
    loss = LossConfig(softmax_dtype=dtype, fusion_weight=fusion_weight)
    model = create_model("bivrec", config, catalogue, loss, 1)
    model.compile(optimizer=make_optimizer(TrainingConfig(), 100))
    rows = tf.constant(generator.integers(1, ITEMS + 1, [batch, HISTORY + 1]), tf.int32)
    inputs = {SEQUENCE: rows, IS_TARGET: rows > 0, USER: tf.range(batch, dtype=tf.int64)}
    step = tf.function(model.train_step)
    return lambda: step(inputs)["loss"].numpy()


@click.command(help=__doc__)
@click.option("--batch", "batches", multiple=True, type=int, default=(256, 1024), show_default=True)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(["float32", "bfloat16"]),
    default=("float32", "bfloat16"),
    show_default=True,
    help="float32 for everything; bfloat16 for the products of dense layers and of the softmax "
    "over the catalogue.",
)
@click.option("--seconds", default=4.0, show_default=True, help="Spent on every measurement.")
@click.option(
    "--threads-of-an-operation",
    default=1,
    show_default=True,
    help="Two views are two independent graphs: on few cores a thread for each is faster than "
    "all threads on one operation after the other. 0: TensorFlow's choice.",
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where the figures go.")
def main(batches, dtypes, seconds, threads_of_an_operation, out) -> None:
    """Measures and prints."""
    cores = os.cpu_count() or 1
    tf.config.threading.set_intra_op_parallelism_threads(threads_of_an_operation)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    # All cores, whichever way they are kept busy.
    rate = machine_rate(seconds, cores if threads_of_an_operation == 1 else 1)
    found = []
    for batch in batches:
        needed = arithmetic(batch)
        for dtype in dtypes:
            set_policy("float32" if dtype == "float32" else BFloat16Products.NAME)
            functions = {
                **parts(batch, dtype),
                "whole step": whole_step(batch, dtype),
                "whole step, common task": whole_step(batch, dtype, fusion_weight=1.0),
            }
            for name, function in functions.items():
                spent = seconds_of(function, seconds)
                share = needed[name] / spent / rate if name in needed else None
                found.append([batch, dtype, name, spent, share])
                shown = "" if share is None else f"{share:7.1%}"
                each = f"{batch / spent:8.0f} sequences/s" if name.startswith("whole step") else ""
                click.echo(f"{batch:5} {dtype:9}{name:28}{spent * 1e3:9.2f} ms {shown} {each}")
    click.echo(f"machine: {rate / 1e9:.0f} GFLOP/s in float32")
    if out:
        keys = ("batch", "dtype", "part", "seconds", "share")
        rows = [dict(zip(keys, row, strict=True)) for row in found]
        text = {
            "machine_flops": rate,
            "machine": describe_machine(threads_of_an_operation, rate),
            "threads_of_an_operation": threads_of_an_operation,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**text, "measured": rows}, indent=1))


if __name__ == "__main__":
    main()
