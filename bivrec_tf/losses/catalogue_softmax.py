"""Softmax cross-entropy over the whole catalogue, with bounded memory."""

import functools
from typing import Literal

import tensorflow as tf

from bivrec_tf.losses.chunks import (
    Gradients,
    in_chunks,
    longest,
    of_exponentials,
    of_mixture,
    of_targets,
    rows_of_chunk,
)

# A probability that underflowed still has a finite logarithm.
_SMALLEST = 1e-37


class CatalogueSoftmax:
    """Mean cross-entropy of targets against every item of the catalogue.

    Rows are taken in chunks, and each chunk's gradient is computed beside its loss: scores of one
    chunk, `[chunk_rows, K, items]`, are all that is ever in memory, once or twice.
    The price is that gradients of the gradient do not exist.

    Under `logsumexp` every interest has a softmax of its own, and the probability of an item is
    their mean, weighted by their normalisers: that takes one exponential of every score and no
    comparison between interests. In float32 not even the highest score of a row is looked for: as
    long as lengths of vectors bound all scores well within float32, exponentials are summed as
    they are; otherwise, and where a sum is too small, a row is lowered or done again. Under `max`
    interests are taken one after the other, which is what the memory bandwidth of a CPU prefers; of
    equal scores the first interest has the gradient.

    Args:
      readout: How K interest scores of an item become one: `max`, as at serving, or its smooth
        upper bound `logsumexp`.
      chunk_rows: Scores of so many interests are in memory at once, at least those of one row;
        none: of as many as have 16 MiB of them, but of 64 at least and 512 at most.
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
            found = self._loss_and_gradients(queries, items, targets).mean()

            def gradient(upstream):
                return upstream * found.of_queries[0], upstream * found.of_items[0]

            return found.loss, gradient

        return fused(queries, items)

    def _loss_and_gradients(self, queries, items, targets) -> Gradients:
        chunk_rows = rows_of_chunk(
            self.chunk_rows, tf.shape(items)[0], queries.shape[1], self.dtype
        )
        items_cast = tf.cast(items, self.dtype)
        if self.readout == "max":
            first = Gradients(tf.constant(0.0), (tf.zeros_like(queries),), (tf.zeros_like(items),))
        else:
            first = of_targets(queries, items, targets)
        longest_item = longest(items)

        def of_chunk(start, stop):
            chunk, wanted = queries[start:stop], targets[start:stop]
            if self.readout == "max":
                return self._maximum(chunk, items, items_cast, wanted)
            if self.dtype == "float32":
                return of_mixture(chunk, items, longest_item)
            return self._mixture(chunk, items_cast, wanted)

        return in_chunks(of_chunk, chunk_rows, [queries], first)

    def _mixture(self, queries, items_cast, targets) -> Gradients:
        """Under `logsumexp` and not in float32, but for the targets' part."""
        flat = tf.reshape(queries, [-1, queries.shape[2]])
        logits = tf.matmul(tf.cast(flat, self.dtype), items_cast, transpose_b=True)
        # The only pass over the scores that is no product.
        weights = tf.nn.softmax(tf.cast(logits, self._softmax_dtype))
        log_normaliser = _log_normaliser(logits, weights, tf.repeat(targets, queries.shape[1]))
        weights, total = tf.cast(weights, self.dtype), tf.ones_like(log_normaliser)
        return of_exponentials(queries, items_cast, weights, total, log_normaliser)

    def _maximum(self, queries, items, items_cast, targets) -> Gradients:
        """Under `max`."""
        chunk = tf.unstack(tf.cast(queries, self.dtype), axis=1)
        logits = [tf.matmul(query, items_cast, transpose_b=True) for query in chunk]
        scores = functools.reduce(tf.maximum, logits)
        probabilities = tf.nn.softmax(tf.cast(scores, tf.float32))
        count = tf.shape(targets)[0]
        where = tf.stack([tf.range(count), targets], axis=1)
        wanted = tf.maximum(tf.gather_nd(probabilities, where), _SMALLEST)
        by_score = tf.tensor_scatter_nd_sub(probabilities, where, tf.ones([count]))
        remaining = tf.cast(by_score, self.dtype)
        of_queries, of_items = [], tf.zeros_like(items)
        for query, each in zip(chunk, logits, strict=True):
            share = tf.where(each >= scores, remaining, tf.zeros([], remaining.dtype))
            remaining -= share
            of_queries.append(tf.cast(tf.matmul(share, items_cast), tf.float32))
            of_items += tf.cast(tf.matmul(share, query, transpose_a=True), tf.float32)
        loss = -tf.reduce_sum(tf.math.log(wanted))
        return Gradients(loss, (tf.stack(of_queries, axis=1),), (of_items,))


@functools.cache
def _softmax_sums_in_float32(dtype: str) -> bool:
    with tf.init_scope():
        probabilities = tf.function(tf.nn.softmax)(tf.zeros([1, 4096], dtype))
        # Of bfloat16, 256 and 1 are 256.
        return float(probabilities[0, 0]) == 1 / 4096


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
