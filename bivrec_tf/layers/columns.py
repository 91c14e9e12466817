"""Sums over all axes but the last, as a processor computes them fastest."""

import tensorflow as tf


def column_sum(values: tf.Tensor, width: int) -> tf.Tensor:
    """Returns the sum over all axes but the last, added up in float32.

    By the operation of a bias' gradient, which takes less than half the time of `tf.reduce_sum`.

    Args:
      values: float `[..., width]`.
      width: Length of the last axis.

    Returns:
      `[width]`, of the type of `values`.
    """
    flat = tf.cast(tf.reshape(values, [-1, width]), tf.float32)
    return tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=flat), values.dtype)


@tf.custom_gradient
def scale_columns(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns `values * weights`, of a float `[..., D]` and a `[D]` of one type."""

    def gradient(upstream):
        return upstream * weights, column_sum(upstream * values, weights.shape[0])

    return values * weights, gradient
