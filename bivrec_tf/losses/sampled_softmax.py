"""Softmax cross-entropy over in-batch and uniformly drawn items, for large catalogues."""

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras


class _UncorrectedPositive(tf_keras.losses.Loss):
    """Summed cross-entropy that takes the log-Q correction back at each row's positive."""

    def __init__(self, log_draws: tf.Tensor) -> None:
        super().__init__(reduction=tf_keras.losses.Reduction.SUM)
        self._log_draws = log_draws

    def call(self, y_true, y_pred):
        scores = y_pred + y_true * self._log_draws[:, tf.newaxis]
        return tf.nn.softmax_cross_entropy_with_logits(labels=y_true, logits=scores)


class SampledSoftmax:
    """Cross-entropy against the batch's own targets and uniform negatives, log-Q corrected.

    The task is `tfrs.tasks.Retrieval`, which scores K interests by their maximum, subtracts the
    logarithm of each candidate's expected draws, and removes accidental hits (negatives that are
    the row's own target). The positive itself was not drawn: its correction is taken back, without
    which free scores would not end at the log of the targets' distribution.

    Args:
      num_negatives: Uniform negatives of a step.

    Reference: `docs/model.md`, section 3.
    """

    def __init__(self, num_negatives: int) -> None:
        self.num_negatives = num_negatives

    def __call__(
        self,
        queries: tf.Tensor,
        items: tf.Tensor,
        targets: tf.Tensor,
        target_probabilities: tf.Tensor,
    ) -> tf.Tensor:
        """Computes the loss.

        Args:
          queries: float `[n, K, D]`, already divided by the temperature.
          items: float `[items, D]`, without padding.
          targets: int `[n]`, indices into `items`.
          target_probabilities: float `[items]`, the chance that a target is this item.

        Returns:
          float32 scalar, the mean over rows; 0 when `n` is 0.
        """
        targets = tf.cast(targets, tf.int32)
        rows = tf.shape(targets)[0]
        num_items = tf.shape(items)[0]
        negatives = tf.random.uniform([self.num_negatives], maxval=num_items, dtype=tf.int32)
        candidates = tf.concat([targets, negatives], axis=0)
        drawn = tf.cast(rows, tf.float32) * tf.gather(target_probabilities, candidates)
        drawn += self.num_negatives / tf.cast(num_items, tf.float32)
        # Candidates all drawn alike would have probability 1: the scale of `drawn` cancels.
        share = drawn / tf.cast(tf.shape(candidates)[0], tf.float32)
        task = tfrs.tasks.Retrieval(
            loss=_UncorrectedPositive(tf.math.log(drawn[:rows])), remove_accidental_hits=True
        )
        total = task(
            tf.cast(queries, tf.float32),
            tf.cast(tf.gather(items, candidates), tf.float32),
            candidate_sampling_probability=share,
            candidate_ids=candidates,
            compute_metrics=False,
            compute_batch_metrics=False,
        )
        return total / tf.cast(tf.maximum(rows, 1), tf.float32)
