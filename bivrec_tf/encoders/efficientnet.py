"""EfficientNet-Lite0 as a feature extractor: everything before the classifier."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

IMAGE_SIDE = 224
DIMENSION = 1280

# (repeats, kernel, stride of the first, expansion, filters) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_FILTERS = 32
_NORM_EPSILON = 1e-3


class InvertedBottleneck(tf_keras.layers.Layer):
    """Widen each pixel, filter each channel on its own, narrow each pixel, add the input.

    Batch normalisation is folded into the convolutions. The input is added where shapes allow.

    Args:
        in_filters: channels of the input.
        filters: channels of the result.
        kernel_size: of the depthwise convolution.
        strides: of the depthwise convolution.
        expansion: hidden channels per input channel; 1 leaves the widening out.
        **kwargs: for the base class.

    Call arguments:
        inputs: float [batch, height, width, in_filters].

    Returns:
        float [batch, ceil(height / strides), ceil(width / strides), filters].

    Reference: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018.
    """

    def __init__(
        self,
        in_filters: int,
        filters: int,
        kernel_size: int,
        strides: int,
        expansion: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.in_filters = in_filters
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.expansion = expansion
        self.expand = _pointwise(in_filters * expansion, "expand") if expansion > 1 else None
        self.depthwise = tf_keras.layers.DepthwiseConv2D(
            kernel_size, strides, padding="same", activation=tf.nn.relu6, name="depthwise"
        )
        self.project = tf_keras.layers.Conv2D(filters, 1, name="project")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        hidden = inputs if self.expand is None else self.expand(inputs)
        outputs = self.project(self.depthwise(hidden))
        if self.strides == 1 and self.in_filters == self.filters:
            outputs += inputs
        return outputs

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "in_filters": self.in_filters,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "expansion": self.expansion,
        }


class EfficientNetLite0(tf_keras.Model):
    """Pixels -> the mean of the last feature map.

    The lite variant has no squeeze-and-excitation, and relu6 instead of swish.

    Args:
        **kwargs: for the base class.

    Call arguments:
        inputs: uint8 or float [batch, 224, 224, 3], RGB from 0 to 255.

    Returns:
        float32 [batch, 1280], not negative, not normalised.

    Reference: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks, 2019.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.stem = tf_keras.layers.Conv2D(
            _STEM_FILTERS, 3, 2, padding="same", activation=tf.nn.relu6, name="stem"
        )
        self.blocks: list[InvertedBottleneck] = []
        in_filters = _STEM_FILTERS
        for repeats, kernel_size, strides, expansion, filters in _STAGES:
            for repeat in range(repeats):
                block = InvertedBottleneck(
                    in_filters,
                    filters,
                    kernel_size,
                    strides if repeat == 0 else 1,
                    expansion,
                    name=f"block_{len(self.blocks)}",
                )
                self.blocks.append(block)
                in_filters = filters
        self.head = _pointwise(DIMENSION, "head")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        states = self.stem((tf.cast(inputs, tf.float32) - 127.0) / 128.0)
        for block in self.blocks:
            states = block(states)
        return tf.reduce_mean(self.head(states), axis=[1, 2])

    def assign_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Assigns weights under the names that PyTorch checkpoints of this network carry.

        Args:
            weights: name (`_blocks.0._depthwise_conv.weight`) -> values.

        Raises:
            KeyError: a weight is missing.
            ValueError: a weight has another shape.
        """
        self(tf.zeros([1, IMAGE_SIDE, IMAGE_SIDE, 3]))  # Builds the variables.
        _assign_folded(self.stem, weights, "_conv_stem", "_bn0")
        for number, block in enumerate(self.blocks):
            prefix = f"_blocks.{number}"
            if block.expand is not None:
                _assign_folded(block.expand, weights, f"{prefix}._expand_conv", f"{prefix}._bn0")
            _assign_folded(block.depthwise, weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
            _assign_folded(block.project, weights, f"{prefix}._project_conv", f"{prefix}._bn2")
        _assign_folded(self.head, weights, "_conv_head", "_bn1")


def _pointwise(filters: int, name: str) -> tf_keras.layers.Conv2D:
    return tf_keras.layers.Conv2D(filters, 1, activation=tf.nn.relu6, name=name)


def _assign_folded(
    layer: tf_keras.layers.Layer,
    weights: Mapping[str, np.ndarray],
    convolution: str,
    norm: str,
) -> None:
    """Assigns a convolution with the scale and shift of the batch normalisation after it."""
    kernel = weights[f"{convolution}.weight"].astype(np.float64)
    mean, variance, scale, shift = (
        weights[f"{norm}.{name}"].astype(np.float64)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    scale /= np.sqrt(variance + _NORM_EPSILON)
    kernel *= scale[:, np.newaxis, np.newaxis, np.newaxis]
    # [out, in, height, width] -> [height, width, in, out]; depthwise has (in, out) swapped.
    depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
    kernel = kernel.transpose([2, 3, 0, 1] if depthwise else [2, 3, 1, 0])
    layer.set_weights([kernel, shift - mean * scale])
