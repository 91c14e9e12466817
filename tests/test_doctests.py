"""The examples in the docstrings of the public classes."""

import doctest
import importlib
import pkgutil
import sys

import numpy as np
import pytest
import tensorflow as tf

import bivrec_tf

PACKAGES = ["layers", "losses", "metrics", "models", "retrieval"]


def examples():
    """Every docstring example of the packages, of classes as seen from their own modules."""
    finder, found = doctest.DocTestFinder(recurse=True), {}
    for package in PACKAGES:
        root = importlib.import_module(f"bivrec_tf.{package}")
        for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            module = importlib.import_module(info.name)
            given = {**vars(module), "tf": tf, "np": np}
            for test in finder.find(module, globs=given):
                if test.examples:
                    found[test.name] = test
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name):
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
        EXAMPLES[name], out=sys.stdout.write, clear_globs=False
    )
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_layer_metric_model_and_index_has_an_example():
    documented = {name.rsplit(".", 1)[1] for name in EXAMPLES}
    for package in ("layers", "metrics", "retrieval"):
        module = importlib.import_module(f"bivrec_tf.{package}")
        for name in module.__all__:
            if name == "RankingMetric" or not issubclass(getattr(module, name), tf.Module):
                continue
            assert name in documented, name
    assert "BiVRec" in documented
    assert bivrec_tf.__version__
