"""Signs of a collapse of interests, watched in training."""

import tensorflow as tf


def in_use(balance: tf.Tensor, num_interests: int) -> tf.Tensor:
    """Returns e to the entropy of the mean allocation: K when all are used alike, 1 in a collapse.

    Args:
      balance: float scalar, `AllocationBalance` of the allocation.
      num_interests: K.
    """
    return num_interests * tf.exp(-balance)


def mean_cosine(interests: tf.Tensor) -> tf.Tensor:
    """Returns the mean cosine between different interests of a row, float32 `[n]`.

    Args:
      interests: float `[n, K, D]`.
    """
    count = interests.shape[1]
    unit = tf.math.l2_normalize(tf.cast(interests, tf.float32), axis=2)
    # One value a row: a batch without targets has none, and must not make the mean NaN.
    mean = tf.reduce_mean(tf.matmul(unit, unit, transpose_b=True), axis=[1, 2])
    return (count * mean - 1.0) / max(count - 1, 1)
