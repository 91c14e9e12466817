"""Normalised discounted cumulative gain at k."""

import math

import tensorflow as tf

from bivrec_tf.metrics.ranking_metric import RankingMetric, count_targets, is_hit


class NDCG(RankingMetric):
    """Discounted gain of the targets within k, over that of an ideal ranking.

    The ideal ranking has `min(k, number of targets)` targets in front, whether or not the model
    found any: dividing by the gain of the hits alone would inflate the metric.

    Example:
      >>> float(NDCG(k=10).per_example(tf.constant([[1, 2, 0]]))[0])
      1.0
    """

    prefix = "ndcg"

    def per_example(self, ranks):
        discount = math.log(2.0) / tf.math.log(1.0 + tf.cast(tf.maximum(ranks, 1), tf.float32))
        gain = tf.reduce_sum(is_hit(ranks, self.k) * discount, axis=1)
        ideal = tf.cumsum([0.0] + [1.0 / math.log2(rank + 1) for rank in range(1, self.k + 1)])
        targets = tf.cast(tf.minimum(count_targets(ranks), float(self.k)), tf.int32)
        return tf.math.divide_no_nan(gain, tf.gather(ideal, targets))
