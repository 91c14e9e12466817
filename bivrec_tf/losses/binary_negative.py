"""SASRec's original loss: one drawn negative for every positive."""

import tensorflow as tf


class BinaryNegative:
    """Binary cross-entropy of the target against one item drawn uniformly from the others.

    Reference: Kang and McAuley, *Self-Attentive Sequential Recommendation*, equation 6.
    """

    def __call__(self, queries: tf.Tensor, items: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
          queries: float `[n, K, D]`, already divided by the temperature; scores are maxima over K.
          items: float `[items, D]`, without padding.
          targets: int `[n]`, indices into `items`.

        Returns:
          float32 scalar, the mean over rows; 0 when `n` is 0.
        """
        targets = tf.cast(targets, tf.int32)
        rows, count = tf.shape(targets)[0], tf.shape(items)[0]
        # Drawn among the others: a step of 1 to count - 1 never ends at the target.
        step = tf.random.uniform([rows], 1, tf.maximum(count, 2), tf.int32)
        both = tf.stack([targets, (targets + step) % count], axis=1)
        vectors = tf.cast(tf.gather(items, both), tf.float32)
        logits = tf.matmul(tf.cast(queries, tf.float32), vectors, transpose_b=True)
        scores = tf.reduce_max(logits, axis=1)
        losses = tf.nn.softplus(-scores[:, 0]) + tf.nn.softplus(scores[:, 1])
        return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(rows, tf.float32))
