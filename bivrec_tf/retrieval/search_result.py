"""What a search finds."""

from typing import NamedTuple

import tensorflow as tf


class SearchResult(NamedTuple):
    """The best items of `n` queries, best first.

    Attributes:
      scores: float32 `[n, k]`; the dtype's minimum where fewer than k items could be recommended.
      rows: int32 `[n, k]`; 0 there.
      interest: int32 `[n, k]`, the interest with the greatest score for the item.
      view_scores: float32 `[n, k, 2]`, in the order of `features.VIEWS`; 0 for a view that the
        index, or the item, does not have.
    """

    scores: tf.Tensor
    rows: tf.Tensor
    interest: tf.Tensor
    view_scores: tf.Tensor
