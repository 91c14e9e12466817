"""Training on two devices against training on one, in processes of their own."""

import json
import subprocess
import sys

import numpy as np

import bivrec_tf  # noqa: F401  (before TensorFlow: this file also runs as a script)

# isort: split
import tensorflow as tf
import tf_keras

ITEMS = 30


def curve(devices: int, strategy: str, precision: str, drawn: bool) -> dict:
    """Losses and quality, epoch by epoch, and what the model then recommends.

    Devices draw differently: where `drawn` is false, nothing is, and curves differ by what a
    device's part of a batch weighs. Else all of the product's modules and losses take part.
    """
    from bivrec_tf import data
    from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
    from bivrec_tf.config import ModelConfig, TrainingConfig
    from bivrec_tf.models import BiVRec
    from bivrec_tf.training import device_strategy, fit, set_precision

    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
    tf.config.set_logical_device_configuration(cpu, parts)
    tf_keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    names = [str(row) for row in range(ITEMS)]
    features = [ItemFeatures(n, {"text": generator.normal(size=6)}) for n in names]
    catalogue = ItemCatalogue.build(names, [9] * ITEMS, features)
    changes, weights = {}, {"fusion_weight": 1.0, "cross_view_warmup_steps": 0}
    if not drawn:
        changes = {"dropout": 0.0, "gaussian_attention": False, "cluster_attention": False}
        weights = {"semantic_weight": 0, "allocation_weight": 0, "balance_weight": 0}
    model_config = ModelConfig(
        dimension=8, num_interests=2, scales=(1, 2), max_history=6, **changes
    )
    config = TrainingConfig(
        epochs=4,
        batch_size=16,
        learning_rate=0.02,
        item_initialisation="random",
        strategy=strategy,
        precision=precision,
        loss=weights,
    )
    set_precision(config)
    with device_strategy(config).scope():
        model = BiVRec(model_config, catalogue, config.loss)
        model.build_variables()
    # Variables of several devices are drawn in another order.
    for variable in model.trainable_variables:
        values = np.random.default_rng(0).normal(scale=0.3, size=variable.shape)
        variable.assign(values + ("gamma" in variable.name))
    lookup = data.ItemLookup(catalogue)
    starts = generator.integers(0, ITEMS, size=90)
    # Of several lengths, so that parts of a batch have unequal numbers of targets.
    walks = [[names[(s + i) % ITEMS] for i in range(3 + s % 5)] for s in starts]
    windows = data.serialize_sequences([(f"u{n}", [], walk) for n, walk in enumerate(walks)])
    batches = data.training_batches(data.windows_from_ids(windows, lookup), 6, 16, seed=1)
    held_out = data.serialize_sequences([("v", w[:-1], w[-1:]) for w in walks[:40]])
    result = fit(model, batches, data.evaluation_batches(held_out, lookup), config, verbose=0)
    replicas = model.distribute_strategy.num_replicas_in_sync
    history = tf.constant([[0, 0, 3, 4, 5]])
    found = model.build_index(5).search(model(history), history)
    return {
        "replicas": replicas,
        "loss": [epoch["loss"] for epoch in result.history],
        "ndcg": [epoch["val_ndcg_at_10"] for epoch in result.history],
        "rows": found.rows.numpy().tolist(),
        "scores": found.scores.numpy().tolist(),
    }


def run(*arguments: str) -> dict:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_devices_learn_what_one_learns():
    one, two = (
        run("1", "one_device", "float32", "nothing"),
        run("2", "mirrored", "float32", "nothing"),
    )
    assert (one["replicas"], two["replicas"]) == (1, 2)
    # They learn at all, and alike: step by step, after every epoch, item by item in the end.
    assert one["ndcg"][-1] > one["ndcg"][0] + 0.02
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=5e-3)
    np.testing.assert_allclose(two["ndcg"], one["ndcg"], atol=0.01)
    assert two["rows"] == one["rows"]
    np.testing.assert_allclose(two["scores"], one["scores"], rtol=0.01)


def test_two_devices_learn_alike_in_mixed_precision_with_all_that_is_drawn():
    one = run("1", "one_device", "mixed_bfloat16", "drawn")
    two = run("2", "mirrored", "mixed_bfloat16", "drawn")
    assert one["loss"][-1] < 0.9 * one["loss"][0]
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=0.05)


if __name__ == "__main__":
    devices, *settings, drawn = sys.argv[1:]
    print(json.dumps(curve(int(devices), *settings, drawn=drawn == "drawn")))
