"""Objects that all threads and bundles of a worker process share: models, opened files, tallies.

Beam's `Shared` keeps one object alive at a time, so that two encoders in one process would load
their weights in turns; here everything of a run lives until the run is over.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_objects: dict[tuple[str, str], Any] = {}


def once_in_process(run: str, name: str, make: Callable[[], T]) -> T:
    """Returns the object of that name, made by the first caller in this process.

    Args:
        run: which run of the encoder; `release` names it again.
        name: of the object.
        make: makes it.
    """
    with _lock:
        if (run, name) not in _objects:
            _objects[run, name] = make()
        return _objects[run, name]


def release(run: str) -> None:
    """Forgets the objects of a run, in runners that work in the caller's own process."""
    with _lock:
        for key in [key for key in _objects if key[0] == run]:
            del _objects[key]
