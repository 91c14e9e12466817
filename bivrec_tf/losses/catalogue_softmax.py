"""Softmax cross-entropy over the whole catalogue, with bounded memory."""

import functools
from typing import Literal

import tensorflow as tf

# A probability that underflowed still has a finite logarithm.
_SMALLEST = 1e-37

# Scores of one chunk. Larger ones leave the processor's caches, and memory so large is given back
# to the system and asked for again with every chunk; of fewer rows products are slow.
_CHUNK_BYTES = 8 * 2**20
_FEWEST_ROWS = 64

# float32 holds e^-87 to e^88. Sums of exponentials of at most e^60 leave room for any catalogue,
# and of those above e^-60 none has lost what counts.
_HIGHEST_LOGIT = 60.0
_SMALLEST_SUM = 1e-26


class CatalogueSoftmax:
    """Mean cross-entropy of targets against every item of the catalogue.

    Rows are taken in chunks, and each chunk's gradient is computed beside its loss: scores of one
    chunk, `[chunk_rows, K, items]`, are all that is ever in memory, and none is computed twice.
    The price is that gradients of the gradient do not exist.

    Under `logsumexp` every interest has a softmax of its own, and the probability of an item is
    their mean, weighted by their normalisers: that takes one exponential of every score and no
    comparison between interests. In float32 not even the highest score of a row is looked for: as
    long as lengths of vectors bound all scores well within float32, exponentials are summed as
    they are; otherwise, and where a sum is too small, a row is lowered or done again. Under `max`
    interests are taken one after the other, which is
    what the memory bandwidth of a CPU prefers; of equal scores the first interest has the gradient.

    Args:
      readout: How K interest scores of an item become one: `max`, as at serving, or its smooth
        upper bound `logsumexp`.
      chunk_rows: Scores of so many interests are in memory at once, at least those of one row;
        none: of as many as have 8 MiB of them, and of 64 at least.
      dtype: Of the matrix products and what goes into them. Exponentials and gradients are added up
        in float32; the normalisers of a mixture are as precise as a probability of this type.

    Reference: `docs/model.md`, section 3.
    """

    def __init__(
        self,
        readout: Literal["max", "logsumexp"] = "max",
        chunk_rows: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.readout = readout
        self.chunk_rows = chunk_rows
        self.dtype = dtype
        # Without the processor's own kernel, a softmax of bfloat16 adds up in bfloat16.
        self._softmax_dtype = dtype if _softmax_sums_in_float32(dtype) else "float32"

    def __call__(self, queries: tf.Tensor, items: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Computes the loss.

        Args:
          queries: float `[n, K, D]`, already divided by the temperature.
          items: float `[items, D]`, without padding.
          targets: int `[n]`, indices into `items`.

        Returns:
          float32 scalar; 0 when `n` is 0.
        """
        queries, items = tf.cast(queries, tf.float32), tf.cast(items, tf.float32)
        targets = tf.cast(targets, tf.int32)

        @tf.custom_gradient
        def fused(queries, items):
            loss, query_gradient, item_gradient = self._loss_and_gradients(queries, items, targets)

            def gradient(upstream):
                return upstream * query_gradient, upstream * item_gradient

            return loss, gradient

        return fused(queries, items)

    def _loss_and_gradients(self, queries, items, targets):
        rows, interests, dimension = tf.shape(queries)[0], queries.shape[1], queries.shape[2]
        chunk_rows = self._rows_of_chunk(tf.shape(items)[0], interests)
        chunks = -(-rows // chunk_rows)
        items_cast = tf.cast(items, self.dtype)
        of_chunk = self._maximum
        known_loss, known_of_queries, known_of_items = 0.0, None, tf.zeros_like(items)
        if self.readout == "logsumexp":
            of_chunk = self._mixture
            known_loss, known_of_queries, known_of_items = _of_targets(queries, items, targets)

        def one_chunk(index, loss, query_gradients, item_gradient):
            start = index * chunk_rows
            stop = tf.minimum(start + chunk_rows, rows)
            of_queries, of_items, of_loss = of_chunk(
                queries[start:stop], items, items_cast, targets[start:stop]
            )
            query_gradients = query_gradients.write(index, of_queries)
            return index + 1, loss + of_loss, query_gradients, item_gradient + of_items

        query_gradients = tf.TensorArray(
            tf.float32,
            size=chunks,
            infer_shape=False,
            element_shape=[None, interests, dimension],
        )
        _, loss, query_gradients, item_gradient = tf.while_loop(
            lambda index, *_: index < chunks,
            one_chunk,
            (tf.constant(0), tf.constant(0.0) + known_loss, query_gradients, known_of_items),
            parallel_iterations=1,
        )
        query_gradient = tf.cond(chunks > 0, query_gradients.concat, lambda: tf.zeros_like(queries))
        if known_of_queries is not None:
            query_gradient += known_of_queries
        mean = 1.0 / tf.cast(tf.maximum(rows, 1), tf.float32)
        return mean * loss, mean * query_gradient, mean * item_gradient

    def _rows_of_chunk(self, items, interests):
        if self.chunk_rows is not None:
            return max(1, self.chunk_rows // interests)
        row_bytes = tf.dtypes.as_dtype(self.dtype).size * tf.maximum(items, 1)
        return tf.maximum(tf.maximum(_CHUNK_BYTES // row_bytes, _FEWEST_ROWS) // interests, 1)

    def _mixture(self, queries, items, items_cast, targets):
        """Gradients and loss under `logsumexp`, summed over rows, but for `_of_targets`."""
        interests, dimension = queries.shape[1], queries.shape[2]
        flat = tf.reshape(queries, [-1, dimension])
        if self.dtype == "float32":
            weights, total, log_normaliser = _exponentials(flat, items)
        else:
            logits = tf.matmul(tf.cast(flat, self.dtype), items_cast, transpose_b=True)
            # The only pass over the scores that is no product.
            weights = tf.nn.softmax(tf.cast(logits, self._softmax_dtype))
            log_normaliser = _log_normaliser(logits, weights, tf.repeat(targets, interests))
            weights, total = tf.cast(weights, self.dtype), tf.ones_like(log_normaliser)
        log_normaliser = tf.reshape(log_normaliser, [-1, interests])
        share = tf.reshape(tf.nn.softmax(log_normaliser), [-1, 1]) / total[:, tf.newaxis]
        of_queries = share * tf.cast(tf.matmul(weights, items_cast), tf.float32)
        # The short factor of the product is scaled, not the scores.
        scaled = tf.cast(share * flat, self.dtype)
        of_items = tf.cast(tf.matmul(weights, scaled, transpose_a=True), tf.float32)
        loss = tf.reduce_logsumexp(log_normaliser, axis=1)
        return tf.reshape(of_queries, tf.shape(queries)), of_items, tf.reduce_sum(loss)

    def _maximum(self, queries, items, items_cast, targets):
        """Gradients and loss, summed over rows, under `max`."""
        chunk = tf.unstack(tf.cast(queries, self.dtype), axis=1)
        logits = [tf.matmul(query, items_cast, transpose_b=True) for query in chunk]
        scores = functools.reduce(tf.maximum, logits)
        probabilities = tf.nn.softmax(tf.cast(scores, tf.float32))
        count = tf.shape(targets)[0]
        where = tf.stack([tf.range(count), targets], axis=1)
        of_targets = tf.maximum(tf.gather_nd(probabilities, where), _SMALLEST)
        by_score = tf.tensor_scatter_nd_sub(probabilities, where, tf.ones([count]))
        remaining = tf.cast(by_score, self.dtype)
        of_queries, of_items = [], tf.zeros_like(items)
        for query, each in zip(chunk, logits, strict=True):
            share = tf.where(each >= scores, remaining, tf.zeros([], remaining.dtype))
            remaining -= share
            of_queries.append(tf.cast(tf.matmul(share, items_cast), tf.float32))
            of_items += tf.cast(tf.matmul(share, query, transpose_a=True), tf.float32)
        return tf.stack(of_queries, axis=1), of_items, -tf.reduce_sum(tf.math.log(of_targets))


@functools.cache
def _softmax_sums_in_float32(dtype: str) -> bool:
    with tf.init_scope():
        probabilities = tf.function(tf.nn.softmax)(tf.zeros([1, 4096], dtype))
        # Of bfloat16, 256 and 1 are 256.
        return float(probabilities[0, 0]) == 1 / 4096


def _exponentials(queries, items):
    """Of the scores of `queries` `[n, D]`: exponentials, perhaps all divided by one number a row.

    Returns:
      float32 `[n, items]`; their sums, `[n]`; the logarithms of the sums before any division.
    """
    longest = tf.sqrt(tf.reduce_max(tf.reduce_sum(tf.square(items), axis=1)))
    bound = tf.norm(queries, axis=1) * longest
    lower = tf.maximum(bound - _HIGHEST_LOGIT, 0.0)
    scores = functools.partial(tf.matmul, queries, items, transpose_b=True)
    lowered = tf.cond(
        tf.reduce_any(lower > 0.0), lambda: scores() - lower[:, tf.newaxis], lambda: scores()
    )
    weights = tf.exp(lowered)
    total = tf.reduce_sum(weights, axis=1)

    def as_they_are():
        return weights, total, lower + tf.math.log(total)

    def by_highest():
        # Scores are multiplied again: kept, they would take memory that nobody else needs.
        again = scores()
        highest = tf.reduce_max(again, axis=1)
        relative = tf.exp(again - highest[:, tf.newaxis])
        sums = tf.reduce_sum(relative, axis=1)
        return relative, sums, highest + tf.math.log(sums)

    return tf.cond(tf.reduce_all(total > _SMALLEST_SUM), as_they_are, by_highest)


def _log_normaliser(logits, probabilities, targets):
    """Logarithm of the sum of the exponentials of every row, float32 `[rows]`.

    From what the softmax made of one item, the target, which saves a pass over all scores.
    """
    where = tf.stack([tf.range(tf.size(targets)), targets], axis=1)
    logit, probability = (
        tf.cast(tf.gather_nd(of, where), tf.float32) for of in (logits, probabilities)
    )
    return tf.cond(
        tf.reduce_all(probability > _SMALLEST),
        lambda: logit - tf.math.log(probability),
        lambda: tf.reduce_logsumexp(tf.cast(logits, tf.float32), axis=1),
    )


def _of_targets(queries, items, targets):
    """The targets' part of loss and gradients under `logsumexp`: a vector for a row."""
    wanted = tf.gather(items, targets)
    scores = tf.einsum("nkd,nd->nk", queries, wanted)
    posterior = tf.nn.softmax(scores)
    of_queries = -posterior[:, :, tf.newaxis] * wanted[:, tf.newaxis]
    of_items = tf.tensor_scatter_nd_sub(
        tf.zeros_like(items), targets[:, tf.newaxis], tf.einsum("nk,nkd->nd", posterior, queries)
    )
    return -tf.reduce_sum(tf.reduce_logsumexp(scores, axis=1)), of_queries, of_items
