"""Coarse cross-view learning: the two views of a user mean the same."""

import math
from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense

_INITIAL_TEMPERATURE = 0.07
_LOWEST_TEMPERATURE = 0.01
_HIGHEST_TEMPERATURE = 1.0


def info_nce(
    left: tf.Tensor, right: tf.Tensor, users: tf.Tensor, temperature: tf.Tensor | float
) -> tf.Tensor:
    """Symmetric InfoNCE between two views of the same users.

    Row `i` of one view is the positive of row `i` of the other, and the other users of the batch
    are its negatives. The positive is in the denominator; another row of the same user is not.

    Args:
      left: float `[batch, D]`, L2-normalised.
      right: float `[batch, D]`, L2-normalised.
      users: int `[batch]`, equal for rows of one user.
      temperature: positive scalar.

    Returns:
      float32 scalar; 0 for an empty batch.
    """
    logits = tf.matmul(left, right, transpose_b=True) / temperature
    same_user = tf.equal(users[:, tf.newaxis], users[tf.newaxis, :])
    own_row = tf.eye(tf.shape(users)[0], dtype=tf.bool)
    logits = tf.where(same_user & ~own_row, logits.dtype.min, logits)
    positive = tf.range(tf.shape(users)[0])
    each = sum(
        tf.nn.sparse_softmax_cross_entropy_with_logits(positive, of_one)
        for of_one in (logits, tf.transpose(logits))
    )
    rows = tf.cast(tf.shape(users)[0], logits.dtype)
    return tf.math.divide_no_nan(0.5 * tf.reduce_sum(each), rows)


class SemanticSimilarity(tf_keras.layers.Layer):
    """Contrast of `u_view = normalise(head_view(mean_k z_k))` between the two views.

    Args:
      **kwargs: Passed to the base class.

    Inputs: `id_interests` and `mm_interests`, float `[batch, K, D]`; `users`, int `[batch]`.
    Output: float32 scalar loss.

    Example:
      >>> z = tf.random.normal([3, 4, 8])
      >>> SemanticSimilarity()(z, z, tf.constant([1, 2, 3])).shape
      TensorShape([])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Cross-View Interest Learning;
    `docs/model.md`, section 4.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._id_head = Dense(dimension, use_bias=False, name="id_head")
        self._mm_head = Dense(dimension, use_bias=False, name="mm_head")
        self._log_temperature = self.add_weight(
            "log_temperature",
            [],
            initializer=tf_keras.initializers.Constant(math.log(_INITIAL_TEMPERATURE)),
        )
        super().build(input_shape)

    def temperature(self) -> tf.Tensor:
        """Returns the learned temperature, clipped, float32 scalar."""
        log_temperature = tf.cast(self._log_temperature, tf.float32)
        return tf.clip_by_value(tf.exp(log_temperature), _LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE)

    def call(self, id_interests, mm_interests, users):
        left, right = (
            tf.math.l2_normalize(tf.cast(head(tf.reduce_mean(interests, axis=1)), tf.float32), -1)
            for head, interests in ((self._id_head, id_interests), (self._mm_head, mm_interests))
        )
        return info_nce(left, right, users, self.temperature())
