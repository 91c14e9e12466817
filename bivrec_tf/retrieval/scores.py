"""What is done with the scores of a block of items, `[n, stop - start]`."""

import functools

import tensorflow as tf


def best_of_interests(queries: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Returns the greatest score that an interest gives to each item, `[n, items]`.

    Interest by interest: the scores of all of them are never in memory, and a maximum of two
    matrices is far faster than one over an axis in the middle.

    Args:
      queries: float `[n, K, D]`.
      table: float `[items, D]`.
    """
    if queries.shape[1] is None:
        return tf.reduce_max(tf.einsum("nkd,vd->nkv", queries, table), axis=1)
    each = (tf.matmul(query, table, transpose_b=True) for query in tf.unstack(queries, axis=1))
    return functools.reduce(tf.maximum, each)


def count_better(
    scores: tf.Tensor,
    open_to: tf.Tensor,
    target_scores: tf.Tensor,
    target_rows: tf.Tensor,
    start: tf.Tensor | int,
) -> tf.Tensor:
    """Counts the items that stand before targets: higher scores, and lower rows of equal scores.

    Args:
      scores: float `[n, items]`, of the rows from `start` on.
      open_to: bool `[n, items]`, which of them count.
      target_scores: float `[n, T]`.
      target_rows: int32 `[n, T]`; a target does not stand before itself.
      start: Row of the first item.

    Returns:
      int32 `[n, T]`.
    """
    rows = (start + tf.range(tf.shape(scores)[1]))[tf.newaxis]

    def better_than(target):
        score, row = target[0][:, tf.newaxis], target[1][:, tf.newaxis]
        ahead = tf.where(rows < row, scores >= score, scores > score)
        return tf.math.count_nonzero(ahead & open_to, axis=1, dtype=tf.int32)

    counts = tf.map_fn(
        better_than,
        (tf.transpose(target_scores), tf.transpose(target_rows)),
        fn_output_signature=tf.int32,
    )
    return tf.transpose(counts)


def mask_of(rows: tf.Tensor, start: tf.Tensor | int, stop: tf.Tensor | int) -> tf.Tensor:
    """Which items of a block stand in `rows`, int `[n, E]`: bool `[n, stop - start]`."""
    count, width = tf.shape(rows)[0], stop - start
    # Rows of other blocks go to one extra column, which is cut off.
    inside = (rows >= start) & (rows < stop)
    column = tf.where(inside, rows - start, width)
    query = tf.broadcast_to(tf.range(count)[:, tf.newaxis], tf.shape(rows))
    hits = tf.scatter_nd(
        tf.stack([query, column], axis=2), tf.ones_like(rows), tf.stack([count, width + 1])
    )
    return hits[:, :width] > 0
