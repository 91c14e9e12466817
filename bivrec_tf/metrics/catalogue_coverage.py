"""Catalogue coverage at k."""

from typing import Any

import tensorflow as tf
import tf_keras


class CatalogueCoverage(tf_keras.metrics.Metric):
    """The share of the catalogue that anybody was recommended.

    Args:
      num_items: Items of the catalogue, without padding.
      k: Recommendations of an example that count.
      name: Defaults to `coverage_at_<k>`.
      **kwargs: Passed to the base class.

    Example:
      >>> coverage = CatalogueCoverage(num_items=4, k=2)
      >>> _ = coverage.update_state(tf.constant([[1, 2], [2, 1]]))
      >>> float(coverage.result())
      0.5
    """

    def __init__(self, num_items: int, k: int, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or f"coverage_at_{k}", **kwargs)
        self.num_items = num_items
        self.k = k
        self._seen = self.add_weight("seen", [num_items + 1], initializer="zeros")

    def update_state(self, rows, sample_weight=None):
        """Adds recommendations, int `[n, at least k]` rows; 0 is padding."""
        rows = tf.reshape(rows[:, : self.k], [-1])
        ones = tf.ones(tf.shape(rows))
        self._seen.scatter_nd_max(rows[:, tf.newaxis], ones)

    def result(self):
        return tf.reduce_sum(self._seen[1:]) / float(self.num_items)

    def get_config(self):
        return {**super().get_config(), "num_items": self.num_items, "k": self.k}
