"""Masked attention arithmetic that holds in every floating dtype."""

import tensorflow as tf


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Softmax over the entries that `mask` allows; exactly 0 elsewhere.

    A slice without any allowed entry gives zeros, not NaN: masked logits are the dtype's own
    minimum (a fixed -1e9 is infinite in float16), and the result is multiplied by the mask.

    Args:
      logits: float tensor.
      mask: bool, broadcastable to `logits`.
      axis: the axis that sums to 1.

    Returns:
      Weights of the shape and dtype of `logits`.
    """
    masked = tf.where(mask, logits, logits.dtype.min)
    return tf.nn.softmax(masked, axis=axis) * tf.cast(mask, logits.dtype)


def prefix_sum(values: tf.Tensor) -> tf.Tensor:
    """Running sums along axis 1, as a product with a triangular matrix.

    At the lengths of histories (tens to hundreds) one matrix product is several times faster on
    CPU than a scan, and XLA compiles it well.

    Args:
      values: float `[batch, length, ...]`.

    Returns:
      float `[batch, length, ...]`: entry `t` is the sum of entries `0 .. t`.
    """
    shape = tf.shape(values)
    length = shape[1]
    triangle = tf.linalg.band_part(tf.ones([length, length], values.dtype), -1, 0)
    flat = tf.reshape(values, [shape[0], length, -1])
    return tf.reshape(tf.matmul(triangle, flat), shape)
