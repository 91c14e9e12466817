"""Settings that every test shares."""

import os

import pytest

# Before TensorFlow is imported by anything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bivrec_tf  # noqa: E402, F401  (selects Keras 2 for the whole process)

# The folder that takes longest is begun first.
FIRST = ("pipeline", "components", "serving")


def folder_of(nodeid: str) -> str:
    """Returns the folder of a test below `tests`, or its file where it is in none."""
    return nodeid.partition("::")[0].split("/")[1]


def pytest_collection_modifyitems(items):
    """Puts what takes longest first."""
    places = {folder: place for place, folder in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(folder_of(item.nodeid), len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps tests of one folder, which share fixtures, in one process of `make unit`'s two.

    Not by `--dist loadgroup`: with pytest 9.2 xdist 3.8 does not see the groups, and every process
    runs the pipelines that the tests of a folder look at.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return folder_of(nodeid)

    return ByFolder(config, log)
