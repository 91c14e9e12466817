"""Scores of the catalogue in chunks of rows: what the softmax losses over all items share."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

# Scores of one chunk. Larger ones leave the processor's caches, and memory so large is given back
# to the system and asked for again with every chunk; of fewer rows products are slow.
_CHUNK_BYTES = 16 * 2**20
_FEWEST_ROWS, _MOST_ROWS = 64, 512

# float32 holds e^-87 to e^88: exponentials of at most this can be summed over any catalogue.
_HIGHEST_LOGIT = 60.0
SMALLEST_SUM = 1e-26
"""A sum of exponentials above this has lost nothing that counts to what float32 cannot hold."""


class Gradients(NamedTuple):
    """Losses summed over rows, and their gradients.

    Attributes:
      loss: float32, of any shape.
      of_queries: float32 `[n, K, D]` of every view.
      of_items: float32 `[items, D]` of every view.
    """

    loss: tf.Tensor
    of_queries: tuple[tf.Tensor, ...]
    of_items: tuple[tf.Tensor, ...]

    def mean(self):
        """Returns means over rows; 0 without any."""
        share = 1.0 / tf.cast(tf.maximum(tf.shape(self.of_queries[0])[0], 1), tf.float32)
        return tf.nest.map_structure(lambda value: share * value, self)


def rows_of_chunk(wanted: int | None, items: tf.Tensor, interests: int, dtype: str) -> tf.Tensor:
    """Returns how many rows go through together.

    Args:
      wanted: Interests of a chunk; none: as many as have 16 MiB of scores, but 64
        at least and 512 at most.
      items: Of the catalogue, int scalar.
      interests: Of a row.
      dtype: Of the scores.
    """
    if wanted is None:
        row_bytes = tf.dtypes.as_dtype(dtype).size * tf.maximum(items, 1)
        wanted = tf.clip_by_value(_CHUNK_BYTES // row_bytes, _FEWEST_ROWS, _MOST_ROWS)
    return tf.maximum(wanted // interests, 1)


def in_chunks(
    of_chunk: Callable[[tf.Tensor, tf.Tensor], Gradients],
    chunk_rows: tf.Tensor,
    queries: Sequence[tf.Tensor],
    first: Gradients,
) -> Gradients:
    """Adds up what chunks of rows give, one after the other.

    Args:
      of_chunk: Called with the first row of a chunk and the one after its last.
      chunk_rows: Rows of a chunk.
      queries: float `[n, K, D]` of every view.
      first: What the sums start from.
    """
    rows = tf.shape(queries[0])[0]
    chunks = -(-rows // chunk_rows)
    arrays = tuple(
        tf.TensorArray(
            tf.float32, size=chunks, infer_shape=False, element_shape=[None, *query.shape[1:]]
        )
        for query in queries
    )

    def one_chunk(index, loss, written, of_items):
        start = index * chunk_rows
        found = of_chunk(start, tf.minimum(start + chunk_rows, rows))
        written = tuple(a.write(index, g) for a, g in zip(written, found.of_queries, strict=True))
        added = tuple(a + b for a, b in zip(of_items, found.of_items, strict=True))
        return index + 1, loss + found.loss, written, added

    _, loss, written, of_items = tf.while_loop(
        lambda index, *_: index < chunks,
        one_chunk,
        (tf.constant(0), first.loss, arrays, first.of_items),
        parallel_iterations=1,
    )
    of_queries = tuple(
        known + tf.cond(chunks > 0, array.concat, functools.partial(tf.zeros_like, known))
        for known, array in zip(first.of_queries, written, strict=True)
    )
    return Gradients(loss, of_queries, of_items)


def of_targets(queries: tf.Tensor, items: tf.Tensor, targets: tf.Tensor) -> Gradients:
    """The targets' part of a mixture's loss: minus the logarithm of their exponentials' sum.

    Args:
      queries: float32 `[n, K, D]`.
      items: float32 `[items, D]`.
      targets: int32 `[n]`.
    """
    wanted = tf.gather(items, targets)
    scores = tf.einsum("nkd,nd->nk", queries, wanted)
    posterior = tf.nn.softmax(scores)
    of_queries = -posterior[:, :, tf.newaxis] * wanted[:, tf.newaxis]
    of_items = tf.tensor_scatter_nd_sub(
        tf.zeros_like(items), targets[:, tf.newaxis], tf.einsum("nk,nkd->nd", posterior, queries)
    )
    loss = -tf.reduce_sum(tf.reduce_logsumexp(scores, axis=1))
    return Gradients(loss, (of_queries,), (of_items,))


def longest(items: tf.Tensor) -> tf.Tensor:
    """Returns the length of the longest of `[items, D]`; 0 without any."""
    return tf.sqrt(tf.maximum(tf.reduce_max(tf.reduce_sum(tf.square(items), axis=1)), 0.0))


def of_mixture(queries: tf.Tensor, items: tf.Tensor, longest_item: tf.Tensor) -> Gradients:
    """The other part: the logarithm of the sum of the exponentials of all scores of a row.

    Args:
      queries: float32 `[n, K, D]`.
      items: float32 `[items, D]`.
      longest_item: See `longest`; of all chunks one.
    """
    flat = tf.reshape(queries, [-1, queries.shape[2]])
    return of_exponentials(queries, items, *_exponentials(flat, items, longest_item))


def of_exponentials(
    queries: tf.Tensor,
    items: tf.Tensor,
    weights: tf.Tensor,
    total: tf.Tensor,
    log_normaliser: tf.Tensor,
) -> Gradients:
    """The same, of exponentials that are there already.

    Args:
      queries: float32 `[n, K, D]`.
      items: `[items, D]`, of the type of `weights`, in which products are taken.
      weights: Of every interest, `[n * K, items]`: exponentials over one number a row.
      total: float32 `[n * K]`, their sums.
      log_normaliser: float32 `[n * K]`, logarithms of the sums of the exponentials themselves.
    """
    flat = tf.reshape(queries, [-1, queries.shape[2]])
    log_normaliser = tf.reshape(log_normaliser, [-1, queries.shape[1]])
    share = share_of_interests(log_normaliser) / total[:, tf.newaxis]
    of_queries = share * tf.cast(tf.matmul(weights, items), tf.float32)
    # The short factor of the product is scaled, not the scores.
    of_items = tf.matmul(weights, tf.cast(share * flat, weights.dtype), transpose_a=True)
    loss = tf.reduce_sum(tf.reduce_logsumexp(log_normaliser, axis=1))
    shaped = tf.reshape(of_queries, tf.shape(queries))
    return Gradients(loss, (shaped,), (tf.cast(of_items, tf.float32),))


def side_by_side(
    queries: Sequence[tf.Tensor], items: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns vectors whose scores are the means of two views' scores, in float32.

    Args:
      queries: float `[n, K, D]` of both views.
      items: float `[items, D]` of both views.
    """
    both = [
        tf.concat([tf.cast(side, tf.float32) for side in sides], axis=-1)
        for sides in (queries, items)
    ]
    return 0.5 * both[0], both[1]


def share_of_interests(log_normaliser: tf.Tensor) -> tf.Tensor:
    """Returns the weight of every interest in the mixture, `[n * K, 1]`, of `[n, K]`."""
    return tf.reshape(tf.nn.softmax(log_normaliser), [-1, 1])


def lowered_scores(
    queries: tf.Tensor, items: tf.Tensor, longest_item: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores `[n, items]`, and what every row was lowered by to stay below e^60, `[n]`.

    Lengths of vectors bound the scores, so that nobody has to look for the highest.
    """
    lower = tf.maximum(tf.norm(queries, axis=1) * longest_item - _HIGHEST_LOGIT, 0.0)
    scores = functools.partial(tf.matmul, queries, items, transpose_b=True)
    needed = tf.reduce_any(lower > 0.0)
    return tf.cond(needed, lambda: scores() - lower[:, tf.newaxis], scores), lower


def _exponentials(queries, items, longest_item):
    """Exponentials of the scores of `queries`, `[n, D]`, perhaps all divided by one number a row.

    Returns:
      float32 `[n, items]`; their sums, `[n]`; the logarithms of the sums before any division.
    """
    lowered, lower = lowered_scores(queries, items, longest_item)
    weights = tf.exp(lowered)
    total = tf.reduce_sum(weights, axis=1)

    def as_they_are():
        return weights, total, lower + tf.math.log(total)

    def by_highest():
        # Scores are multiplied again: kept, they would take memory that nobody else needs.
        again = tf.matmul(queries, items, transpose_b=True)
        highest = tf.reduce_max(again, axis=1)
        relative = tf.exp(again - highest[:, tf.newaxis])
        sums = tf.reduce_sum(relative, axis=1)
        return relative, sums, highest + tf.math.log(sums)

    return tf.cond(tf.reduce_all(total > SMALLEST_SUM), as_they_are, by_highest)
