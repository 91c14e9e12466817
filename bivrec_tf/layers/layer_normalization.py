"""Layer normalisation with a gradient written out, for processors."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.columns import column_sum

_EPSILON = 1e-6


class LayerNormalization(tf_keras.layers.Layer):
    """`gamma * (x - mean) / sqrt(variance + 1e-6) + beta` over the last axis.

    The same function and the same weights as Keras' layer. That one leaves its gradient to be
    composed of a dozen operations on the whole tensor; `docs/benchmarks.md` has both side by side.
    Gradients of the gradient do not exist.

    Args:
      initial_gain: First value of `gamma`.
      **kwargs: Passed to the base class.

    Input shape: float `[..., D]`.
    Output shape: float `[..., D]`; computed in float32.

    Example:
      >>> LayerNormalization()(tf.constant([[1.0, 3.0]])).numpy().round(3)
      array([[-1.,  1.]], dtype=float32)

    Reference: Ba et al., *Layer Normalization*, arXiv 1607.06450.
    """

    def __init__(self, initial_gain: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_gain = initial_gain

    def build(self, input_shape):
        width = [int(input_shape[-1])]
        gain = tf_keras.initializers.Constant(self.initial_gain)
        self.gamma = self.add_weight("gamma", width, initializer=gain)
        self.beta = self.add_weight("beta", width, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        values = tf.cast(inputs, tf.float32)
        gamma, beta = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        return tf.cast(_normalise(values, gamma, beta), inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "initial_gain": self.initial_gain}


@tf.custom_gradient
def _normalise(values, gamma, beta):
    centred = values - tf.reduce_mean(values, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(variance + _EPSILON)
    normal = centred * inverse

    def gradient(upstream):
        by_normal, product = upstream * gamma, upstream * normal
        mean = tf.reduce_mean(by_normal, axis=-1, keepdims=True)
        along = tf.reduce_mean(product * gamma, axis=-1, keepdims=True)
        width = gamma.shape[0]
        return (
            inverse * (by_normal - mean - normal * along),
            column_sum(product, width),
            column_sum(upstream, width),
        )

    return normal * gamma + beta, gradient
