"""The items that are most alike to one."""

import tensorflow as tf

from bivrec_tf.retrieval.item_table import StoredVectors
from bivrec_tf.retrieval.stream import streamed_top_k

# Rows whose unit vectors are in memory at once.
_BLOCK = 65536


def nearest(
    vectors: StoredVectors, rows: tf.Tensor, k: tf.Tensor, closed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the items whose vectors have the greatest cosine to those of given rows.

    Args:
      vectors: The item vectors of a view.
      rows: int `[n]`.
      k: int32 scalar, at most the number of rows.
      closed: bool `[rows]`, items that are no result.

    Returns:
      Cosines, float32 `[n, k]`, and rows, int32 `[n, k]`, as from `streamed_top_k`; an item is
      not near to itself, and nothing is near to an item whose vector is zero.
    """
    queries = tf.math.l2_normalize(vectors.gather(rows), axis=1)
    has_vector = tf.reduce_any(queries != 0, axis=1, keepdims=True)

    def block_scores(start, stop):
        units = tf.math.l2_normalize(vectors.block(start, stop), axis=1)
        cosines = tf.matmul(queries, units, transpose_b=True)
        open_to = has_vector & ~closed[tf.newaxis, start:stop]
        return tf.where(open_to, cosines, float("-inf"))

    return streamed_top_k(block_scores, vectors.values.shape[0], _BLOCK, rows[:, tf.newaxis], k)
