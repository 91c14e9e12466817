"""Hit rate at k."""

import tensorflow as tf

from bivrec_tf.metrics.ranking_metric import RankingMetric, is_hit


class HitRate(RankingMetric):
    """Whether any target of an example is ranked within k.

    Example:
      >>> float(HitRate(k=2).per_example(tf.constant([[1, 3]]))[0])
      1.0
    """

    prefix = "hit_rate"

    def per_example(self, ranks):
        # At least 0: an example without any target column has no hit, not minus infinity.
        return tf.maximum(tf.reduce_max(is_hit(ranks, self.k), axis=1), 0.0)
