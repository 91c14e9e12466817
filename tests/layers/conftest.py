"""What the tests of the layers share."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tf_keras


@pytest.fixture(autouse=True)
def seeded():
    """First values are drawn alike in every run."""
    tf_keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def naive():
    """The module of the equations in loops, `naive_layers.py`."""
    path = Path(__file__).parent / "naive_layers.py"
    spec = importlib.util.spec_from_file_location("naive_layers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def randomise():
    """A function that moves every weight of a layer, so that no zero or one hides an error."""

    def move(layer, seed=0, spread=0.4):
        rng = np.random.default_rng(seed)
        layer.set_weights([spread * rng.normal(size=w.shape) for w in layer.get_weights()])

    return move


@pytest.fixture()
def mixed_float16():
    """The global policy `mixed_float16`, for one test."""
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf_keras.mixed_precision.set_global_policy("float32")
