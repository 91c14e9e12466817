"""Mean reciprocal rank at k."""

import tensorflow as tf

from bivrec_tf.metrics.ranking_metric import RankingMetric, is_hit


class ReciprocalRank(RankingMetric):
    """The reciprocal rank of an example's best target, 0 beyond k.

    Example:
      >>> float(ReciprocalRank(k=10).per_example(tf.constant([[4, 2]]))[0])
      0.5
    """

    prefix = "mrr"

    def per_example(self, ranks):
        reciprocal = tf.math.divide_no_nan(is_hit(ranks, self.k), tf.cast(ranks, tf.float32))
        # At least 0: an example without any target column has no hit, not minus infinity.
        return tf.maximum(tf.reduce_max(reciprocal, axis=1), 0.0)
