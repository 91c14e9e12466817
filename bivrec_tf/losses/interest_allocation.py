"""Fine cross-view learning: the two views allocate an item to the same interest."""

from typing import Literal

import tensorflow as tf

_TINY = 1e-9


class InterestAllocation:
    """Disagreement between two views' interest allocations, a mean over valid tokens.

    `tied`: interest `k` of one view is tied to interest `k` of the other; the Jensen-Shannon
    divergence (in nats, at most log 2) of the two distributions over interests of a token.
    `co_assignment`: free of that tie; the squared difference between the views' chances that two
    tokens share an interest, `(P^T P)[t, t']`, over pairs of valid tokens.

    Args:
      form: Which of the two.

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Cross-View Interest Learning;
    `docs/model.md`, section 4.
    """

    def __init__(self, form: Literal["tied", "co_assignment"] = "tied") -> None:
        self.form = form

    def __call__(
        self, id_allocation: tf.Tensor, mm_allocation: tf.Tensor, mask: tf.Tensor
    ) -> tf.Tensor:
        """Computes the loss.

        Args:
          id_allocation: float `[batch, K, tokens]`.
          mm_allocation: float `[batch, K, tokens]`.
          mask: bool `[batch, tokens]`.

        Returns:
          float32 scalar; 0 when no token is valid.
        """
        weights = tf.cast(mask, tf.float32)
        if self.form == "tied":
            divergence = _jensen_shannon(id_allocation, mm_allocation)
        else:
            difference = tf.matmul(id_allocation, id_allocation, transpose_a=True) - tf.matmul(
                mm_allocation, mm_allocation, transpose_a=True
            )
            weights = weights[:, :, tf.newaxis] * weights[:, tf.newaxis, :]
            divergence = tf.square(difference)
        return tf.math.divide_no_nan(tf.reduce_sum(divergence * weights), tf.reduce_sum(weights))


def _jensen_shannon(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    middle = tf.math.log(0.5 * (left + right) + _TINY)
    return 0.5 * tf.reduce_sum(
        left * (tf.math.log(left + _TINY) - middle) + right * (tf.math.log(right + _TINY) - middle),
        axis=1,
    )
