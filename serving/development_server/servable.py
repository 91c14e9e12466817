"""One loaded version of a model. All that knows how a SavedModel is read and called is here."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

SAVED_MODEL_FILE = "saved_model.pb"


class LoadError(Exception):
    """A version folder that is there but cannot be loaded; the message is one line."""


class Servable:
    """A loaded version.

    Args:
        directory: The version's folder, which holds `saved_model.pb`.
        version: Its number.

    Attributes:
        version: The version number.
        signature_defs: Every signature as it is written in `saved_model.pb`, by name.

    Raises:
        LoadError: If the folder holds no SavedModel for serving, or a damaged one.
    """

    def __init__(self, directory: Path, version: int):
        self.version = version
        self.signature_defs = _read_signature_defs(directory / SAVED_MODEL_FILE)
        try:
            # Kept as a whole: the functions hold the variables only weakly.
            self._model = tf.saved_model.load(str(directory), tags=[tf.saved_model.SERVING])
        except Exception as error:  # Damage shows as almost any type; no folder may end a server.
            raise LoadError(_one_line(error)) from error
        self._functions: Mapping[str, tf.types.experimental.ConcreteFunction] = (
            self._model.signatures
        )

    def can_run(self, signature_name: str) -> bool:
        """Returns whether `run` accepts the name (not so for the initialiser's signature)."""
        return signature_name in self._functions

    def run(
        self, signature_name: str, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, tuple[np.ndarray, tf.DType]]:
        """Calls a signature. Safe to call from many threads.

        Args:
            signature_name: A name for which `can_run` is true.
            inputs: All inputs of the signature, of the dtypes it declares, by name.

        Returns:
            All outputs by name, with their dtypes: numpy has no string dtype of its own.

        Raises:
            tf.errors.OpError: If an op fails, for instance on shapes that do not go together.
        """
        outputs = self._functions[signature_name](**inputs)
        return {name: (tensor.numpy(), tensor.dtype) for name, tensor in outputs.items()}


def _read_signature_defs(path: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise LoadError(f"{path.name} cannot be read: {_one_line(error)}") from error
    for meta_graph in saved_model.meta_graphs:
        if tf.saved_model.SERVING in meta_graph.meta_info_def.tags:
            return dict(meta_graph.signature_def)
    raise LoadError(f"{path.name} holds no graph with the tag {tf.saved_model.SERVING!r}")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
