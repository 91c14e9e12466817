"""The best of a table that is scored block by block."""

from collections.abc import Callable

import tensorflow as tf

from bivrec_tf.retrieval.scores import NOTHING, best_of_block, without


def streamed_top_k(
    block_scores: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    num_rows: int,
    block_size: tf.Tensor | int,
    excluded_rows: tf.Tensor,
    k: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the k greatest scores of each query and their rows, best first.

    Of equal scores the lower row comes first.

    Args:
      block_scores: Gives scores, float `[n, stop - start]`, of the rows from `start` to before
        `stop`; minus infinity for what is no result.
      num_rows: Rows of the table.
      block_size: Rows scored at once.
      excluded_rows: int `[n, E]`, rows never to return; negative ones mean nothing.
      k: int32 scalar, at most `num_rows`.

    Returns:
      Scores, float32 `[n, k]`, the dtype's minimum where fewer than k rows could be results; and
      rows, int32 `[n, k]`, 0 there.
    """
    count = tf.shape(excluded_rows)[0]

    def merge(start, best_scores, best_rows):
        stop = tf.minimum(start + block_size, num_rows)
        scores = without(block_scores(start, stop), excluded_rows, start, stop)
        found, columns = best_of_block(scores, k)
        # The best so far come first: top_k keeps the earlier of equals, so the lower row.
        scores = tf.concat([best_scores, found], axis=1)
        rows = tf.concat([best_rows, start + columns], axis=1)
        best_scores, chosen = tf.math.top_k(scores, k=k)
        return stop, best_scores, tf.gather(rows, chosen, batch_dims=1)

    shapes = (tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None]))
    _, scores, rows = tf.while_loop(
        lambda start, *_: start < num_rows,
        merge,
        (tf.constant(0), tf.fill([count, k], NOTHING), tf.zeros([count, k], tf.int32)),
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    is_result = scores > NOTHING
    return tf.where(is_result, scores, scores.dtype.min), tf.where(is_result, rows, 0)
