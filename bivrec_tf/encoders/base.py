"""The door for any encoder: one abstract class, and loading by import path."""

import abc
import importlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from bivrec_tf.errors import ConfigError

BUILT_IN_ENCODERS = {
    "minilm": "bivrec_tf.encoders.minilm:MiniLMTextEncoder",
    "minilm-bfloat16": "bivrec_tf.encoders.minilm:MiniLMBfloat16TextEncoder",
    "efficientnet-lite0": "bivrec_tf.encoders.efficientnet_lite0:EfficientNetLite0ImageEncoder",
}
"""Short names -> import paths."""


class Encoder(abc.ABC):
    """Turns a batch of contents into vectors.

    Construction must be cheap (no weights are read): it happens where a pipeline is built. The
    weights are loaded by the first call of `encode`, in the worker. The vector of an input must
    not depend on what else is in the batch.

    Attributes:
        content: what `encode` takes: `text` (each content is a `str`) or `image` (each content is
            the `bytes` of an image file).
    """

    content: ClassVar[Literal["text", "image"]] = "text"

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Short name, fit for a folder: letters, digits, dashes."""

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """Length of the vectors."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the vector of some input would: it names cached vectors."""

    @abc.abstractmethod
    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Returns the vectors of a batch, float32 [len(batch), dimension], in its order.

        Any text has a vector. A file that cannot be read as an image gets a row of NaN, and never
        raises: one bad file must not end a run over millions.

        Args:
            batch: `str` each for a text encoder, `bytes` each for an image encoder.
        """

    def explain(self, content: Any) -> str:
        """Returns in a short phrase why `encode` gives a content no vector.

        Args:
            content: one for which `encode` gave a row of NaN.
        """
        return "the encoder gave no vector"


def load_encoder(path: str) -> Encoder:
    """Returns the encoder of a short name (`minilm`) or of an import path `module:Class`.

    Args:
        path: which encoder; the class is called without arguments.

    Raises:
        ConfigError: there is no such module or class, or it is not an `Encoder`.
    """
    module_name, separator, class_name = BUILT_IN_ENCODERS.get(path, path).partition(":")
    if not separator:
        raise ConfigError(
            f"encoder '{path}': expected one of {', '.join(BUILT_IN_ENCODERS)}, or an import "
            "path such as 'my_package.my_module:MyEncoder'"
        )
    try:
        encoder_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"encoder '{path}' cannot be imported: {error}") from error
    if not (isinstance(encoder_class, type) and issubclass(encoder_class, Encoder)):
        raise ConfigError(f"encoder '{path}' is not a subclass of bivrec_tf.encoders.Encoder")
    return encoder_class()
