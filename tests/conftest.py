"""Settings that every test shares."""

import os
from pathlib import Path

import pytest

# Before TensorFlow is imported by anything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bivrec_tf  # noqa: E402, F401  (selects Keras 2 for the whole process)

TESTS = Path(__file__).parent
# The folder that takes longest is begun first.
FIRST = ("pipeline", "components", "serving")


def pytest_collection_modifyitems(items):
    """Keeps tests of one folder, which share fixtures, in one process of `make unit`'s two."""
    folders = {item: item.path.relative_to(TESTS).parts[0] for item in items}
    for item, folder in folders.items():
        item.add_marker(pytest.mark.xdist_group(folder))
    items.sort(
        key=lambda item: FIRST.index(folders[item]) if folders[item] in FIRST else len(FIRST)
    )
