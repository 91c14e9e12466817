"""What is done with the scores of a block of items, `[n, stop - start]`."""

import functools

import tensorflow as tf

NOTHING = float("-inf")
"""The score of what is no result."""

# Items whose greatest score stands for them while the best are looked for.
_GROUP = 64


def best_of_interests(queries: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Returns the greatest score that an interest gives to each item, `[n, items]`.

    One product for all interests, which reads the table once, and a maximum of whole matrices,
    which is far faster than one over an axis in the middle.

    Args:
      queries: float `[n, K, D]`.
      table: float `[items, D]`.
    """
    if queries.shape[1] is None:
        return tf.reduce_max(tf.einsum("nkd,vd->nkv", queries, table), axis=1)
    interests = queries.shape[1]
    if interests == 1:
        return tf.matmul(queries[:, 0], table, transpose_b=True)
    side_by_side = tf.concat(tf.unstack(queries, axis=1), axis=0)
    scores = tf.matmul(side_by_side, table, transpose_b=True)
    return functools.reduce(tf.maximum, tf.split(scores, interests, axis=0))


def best_of_block(scores: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the k greatest scores of each query and their columns, `[n, min(k, items)]`.

    Of equal scores the lower column comes first. In a long block the k groups of items with the
    greatest members are found first: all of the k best items are in them.

    Args:
      scores: float `[n, items]`.
      k: int32 scalar.
    """
    count, items = tf.shape(scores)[0], tf.shape(scores)[1]

    def at_once():
        found = tf.math.top_k(scores, k=tf.minimum(k, items))
        return found.values, found.indices

    def by_groups():
        groups = -(-items // _GROUP)
        padded = tf.pad(scores, [[0, 0], [0, groups * _GROUP - items]], constant_values=NOTHING)
        grouped = tf.reshape(padded, [count, groups, _GROUP])
        _, best = tf.math.top_k(tf.reduce_max(grouped, axis=2), k=k)
        # In their order: of equal scores, the lower column must still come first.
        best = tf.sort(best, axis=1)
        members = tf.reshape(tf.gather(grouped, best, batch_dims=1), [count, k * _GROUP])
        found = tf.math.top_k(members, k=k)
        group = tf.gather(best, found.indices // _GROUP, batch_dims=1)
        return found.values, group * _GROUP + found.indices % _GROUP

    return tf.cond(items > 4 * _GROUP * k, by_groups, at_once)


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
    shape = tf.stack([tf.shape(rows)[0], stop - start])
    query, column = _inside(rows, start, stop)
    hits = tf.scatter_nd(
        tf.stack([query, column], axis=1), tf.ones_like(column), tf.cast(shape, tf.int32)
    )
    return hits > 0


def without(
    scores: tf.Tensor, rows: tf.Tensor, start: tf.Tensor | int, stop: tf.Tensor | int
) -> tf.Tensor:
    """Returns the scores of a block, minus infinity at `rows`, int `[n, E]`."""
    query, column = _inside(rows, start, stop)
    return tf.tensor_scatter_nd_update(
        scores, tf.stack([query, column], axis=1), tf.fill(tf.shape(column), NOTHING)
    )


def _inside(rows, start, stop) -> tuple[tf.Tensor, tf.Tensor]:
    """Query and column of those rows that are of a block."""
    inside = (rows >= start) & (rows < stop)
    query = tf.broadcast_to(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(rows))
    return tf.boolean_mask(query, inside), tf.boolean_mask(rows - start, inside)
