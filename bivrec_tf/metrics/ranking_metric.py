"""What all ranking metrics share."""

from typing import Any

import tensorflow as tf
import tf_keras


class RankingMetric(tf_keras.metrics.Mean):
    """A mean, over examples, of a function of the ranks of their targets.

    Args:
      k: Cut-off: ranks beyond it count nothing.
      name: Defaults to the metric's name and k, as in `recall_at_20`.
      **kwargs: Passed to the base class.
    """

    prefix = "metric"

    def __init__(self, k: int, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or f"{self.prefix}_at_{k}", **kwargs)
        self.k = k

    def per_example(self, ranks: tf.Tensor) -> tf.Tensor:
        """Computes the metric of each example.

        Args:
          ranks: int `[n, T]`, 1 for the best item; 0 is padding.

        Returns:
          float32 `[n]`.
        """
        raise NotImplementedError

    def update_state(self, ranks, sample_weight=None):
        """Adds examples with ranks int `[n, T]` (0 is padding) to the mean."""
        return super().update_state(self.per_example(ranks), sample_weight)

    def get_config(self):
        return {**super().get_config(), "k": self.k}


def is_hit(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Returns 1.0 for targets ranked within k and 0.0 for others and padding: `[n, T]`."""
    return tf.cast((ranks > 0) & (ranks <= k), tf.float32)


def count_targets(ranks: tf.Tensor) -> tf.Tensor:
    """Returns the number of targets of each example, float32 `[n]`."""
    return tf.reduce_sum(tf.cast(ranks > 0, tf.float32), axis=1)
