"""A small catalogue with content, and models over it with weights far from their first ones."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import LossConfig, ModelConfig
from bivrec_tf.models import BiVRec

TRAINED = [f"t{row:02d}" for row in range(1, 13)]


@pytest.fixture(scope="session")
def catalogue():
    """12 trained items and 3 cold ones; t02 and c1 share their content, t05 and t09 have none."""
    rng = np.random.default_rng(0)
    items = []
    for name in [*TRAINED, "c1", "c2", "c3"]:
        features = {
            "text": rng.normal(3, 2, size=5).astype(np.float32),
            "image": rng.normal(size=3).astype(np.float32),
        }
        if name in ("t05", "t09"):
            features = {}
        if name in ("t03", "c2"):
            del features["image"]
        if name == "c1":
            features = items[1].features
        if name == "c3":
            features = {modality: values + 100 for modality, values in features.items()}
        items.append(ItemFeatures(name, features))
    return ItemCatalogue.build(TRAINED, range(30, 18, -1), items)


@pytest.fixture(scope="session")
def make_model(catalogue):
    """A function that builds a model with random weights."""

    def make(loss=None, seed=0, positions=None, **changes):
        tf_keras.utils.set_random_seed(seed)
        settings = {"dimension": 8, "num_interests": 3, "max_history": 6, "dropout": 0.0, **changes}
        model = BiVRec(ModelConfig(**settings), catalogue, loss or LossConfig(), positions)
        model.build_variables()
        rng = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            if "temperature" not in variable.name:
                variable.assign(rng.normal(size=variable.shape) * 0.5)
        return model

    return make


@pytest.fixture(scope="session")
def batch():
    """Windows of three users, the last one with two; one window has a single item."""
    sequence = [
        [1, 2, 3, 4, 5, 6, 7],
        [0, 0, 8, 9, 10, 11, 12],
        [0, 0, 0, 0, 0, 0, 3],
        [0, 0, 0, 5, 1, 12, 2],
    ]
    is_target = np.array(sequence) > 0
    is_target[0, :4] = False
    return {
        "sequence": tf.constant(sequence, tf.int32),
        "is_target": tf.constant(is_target),
        "user": tf.constant([1, 2, 3, 3], tf.int64),
    }
