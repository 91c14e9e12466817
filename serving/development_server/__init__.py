"""A small gRPC server that answers like TensorFlow Serving, for laptops, tests and validation.

Run it with `python -m serving.development_server --help`.
"""

from typing import TYPE_CHECKING, Any

# Chooses Keras 2 for the process, before any module of this package imports TensorFlow.
import bivrec_tf as _bivrec_tf  # noqa: F401

if TYPE_CHECKING:
    from serving.development_server.server import DevelopmentServer

__all__ = ["DevelopmentServer"]


def __getattr__(name: str) -> Any:
    # Imported on first use: a wrong argument on the command line is then answered at once, not
    # after the seconds that importing TensorFlow takes.
    if name == "DevelopmentServer":
        from serving.development_server.server import DevelopmentServer

        return DevelopmentServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
