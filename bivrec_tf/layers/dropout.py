"""Dropout from random bytes."""

from typing import Any

import tensorflow as tf
import tf_keras

_BYTE_VALUES = 256


class Dropout(tf_keras.layers.Layer):
    """Sets a share of the values to zero in training, and scales up the rest.

    Keras' layer draws a float for every value. Here a random byte decides, and four come out of
    one draw: the rate is rounded to a 256th, and what is kept is scaled by exactly the share that
    is kept on average.

    Args:
      rate: Chance of a value to become 0, at least 0 and less than 1.
      **kwargs: Passed to the base class.

    Input shape: float `[...]`.
    Output shape: float `[...]`; without `training`, the input.

    Example:
      >>> Dropout(0.5)(tf.ones([2, 2])).numpy().tolist()
      [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs, training=None):
        dropped = min(round(self.rate * _BYTE_VALUES), _BYTE_VALUES - 1)
        if not training or not dropped:
            return inputs
        drawn = _random_bytes(tf.size(inputs))
        kept = tf.reshape(drawn >= tf.constant(dropped, tf.uint8), tf.shape(inputs))
        scale = _BYTE_VALUES / (_BYTE_VALUES - dropped)
        return inputs * (tf.cast(kept, inputs.dtype) * tf.cast(scale, inputs.dtype))

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def _random_bytes(count: tf.Tensor) -> tf.Tensor:
    seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    words = tf.random.stateless_uniform(
        [(count + 3) // 4], seed, minval=None, maxval=None, dtype=tf.uint32
    )
    return tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count]
