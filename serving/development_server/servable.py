"""One loaded version of a model. All that knows how a SavedModel is read and called is here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.development_server.session_call import SessionCall

SAVED_MODEL_FILE = "saved_model.pb"


class LoadError(Exception):
    """A version folder that is there but cannot be loaded; the message is one line."""


class Run(Protocol):
    """What answers requests: tensors in, tensors out, by the names they have in the graph."""

    def __call__(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
        """Returns the values of `fetches`. May raise `tf.errors.OpError` or `StatusError`."""
        ...


class Servable:
    """A loaded version, in a session of its own, as TensorFlow Serving keeps it.

    Args:
        directory: The version's folder, which holds `saved_model.pb`.
        version: Its number.
        session_config: Threads and the like; None for TensorFlow's own choice.

    Attributes:
        directory: The version's folder.
        version: The version number.
        signature_defs: Every signature as it is written in `saved_model.pb`, by name.
        run: Answers requests; batching puts itself in its place.

    Raises:
        LoadError: If the folder holds no SavedModel for serving, or a damaged one.
    """

    def __init__(
        self,
        directory: Path,
        version: int,
        session_config: tf.compat.v1.ConfigProto | None = None,
    ):
        self.directory = directory
        self.version = version
        self.signature_defs = _read_signature_defs(directory / SAVED_MODEL_FILE)
        self._callable = {
            name for name, signature in self.signature_defs.items() if _has_plain_tensors(signature)
        }
        try:
            graph = tf.Graph()
            # The session lives as long as a request or the server holds this object.
            self._session = tf.compat.v1.Session(graph=graph, config=session_config)
            with graph.as_default():
                tf.compat.v1.saved_model.load(
                    self._session, [tf.saved_model.SERVING], str(directory)
                )
            self.run: Run = SessionCall(self._session, self._tensor_names())
        except Exception as error:  # Damage shows as almost any type; no folder may end a server.
            raise LoadError(one_line(error)) from error

    def can_run(self, signature_name: str) -> bool:
        """Returns whether a signature takes and gives tensors (the initialiser's does not)."""
        return signature_name in self._callable

    def _tensor_names(self) -> set[str]:
        signatures = [self.signature_defs[name] for name in self._callable]
        return {
            info.name
            for signature in signatures
            for info in (*signature.inputs.values(), *signature.outputs.values())
        }


def one_line(error: Exception) -> str:
    """Returns type and text of an exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _has_plain_tensors(signature: meta_graph_pb2.SignatureDef) -> bool:
    infos = [*signature.inputs.values(), *signature.outputs.values()]
    return all(info.name and info.dtype != types_pb2.DT_INVALID for info in infos)


def _read_signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise LoadError(f"{path.name} cannot be read: {one_line(error)}") from error
    for meta_graph in saved_model.meta_graphs:
        if tf.saved_model.SERVING in meta_graph.meta_info_def.tags:
            return dict(meta_graph.signature_def)
    raise LoadError(f"{path.name} holds no graph with the tag {tf.saved_model.SERVING!r}")
