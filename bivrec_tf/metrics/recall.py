"""Recall at k."""

import tensorflow as tf

from bivrec_tf.metrics.ranking_metric import RankingMetric, count_targets, is_hit


class Recall(RankingMetric):
    """The share of an example's targets that are ranked within k.

    Example:
      >>> float(Recall(k=2).per_example(tf.constant([[1, 3]]))[0])
      0.5
    """

    prefix = "recall"

    def per_example(self, ranks):
        return tf.math.divide_no_nan(
            tf.reduce_sum(is_hit(ranks, self.k), axis=1), count_targets(ranks)
        )
