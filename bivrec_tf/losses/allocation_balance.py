"""A guard against interest collapse."""

import tensorflow as tf


class AllocationBalance:
    """How far the mean allocation of a batch is from using all interests alike.

    `log K - H(mean over valid tokens of P)`, in nats: 0 when all interests are used alike, log K
    when one takes everything.

    Reference: `docs/model.md`, section 4.
    """

    def __call__(self, allocation: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
          allocation: float `[batch, K, tokens]`, 0 at masked tokens.
          mask: bool `[batch, tokens]`.

        Returns:
          float32 scalar.
        """
        tokens = tf.maximum(tf.reduce_sum(tf.cast(mask, tf.float32)), 1.0)
        usage = tf.reduce_sum(allocation, axis=[0, 2]) / tokens
        entropy = -tf.reduce_sum(usage * tf.math.log(usage + 1e-9))
        return tf.math.log(tf.cast(tf.shape(usage)[0], tf.float32)) - entropy
