"""Softmax cross-entropy over the whole catalogue, with bounded memory."""

import functools
from typing import Literal

import tensorflow as tf

# A probability that underflowed still has a finite logarithm.
_SMALLEST = 1e-37


class CatalogueSoftmax:
    """Mean cross-entropy of targets against every item of the catalogue.

    Rows are taken in chunks, and each chunk's gradient is computed beside its loss: scores of one
    chunk, `[chunk_rows, K, items]`, are all that is ever in memory, and none is computed twice.
    The price is that gradients of the gradient do not exist.

    Interests are taken one after the other rather than as one tensor: that is what the memory
    bandwidth of a CPU prefers, and of equal scores the first interest has the gradient.

    Args:
      readout: How K interest scores of an item become one: `max`, as at serving, or its smooth
        upper bound `logsumexp`.
      chunk_rows: Rows whose scores are in memory at once.
      dtype: Of the matrix products and what goes into them. Scores are normalised, and gradients
        added up, in float32.

    Reference: `docs/model.md`, section 3.
    """

    def __init__(
        self,
        readout: Literal["max", "logsumexp"] = "max",
        chunk_rows: int = 512,
        dtype: str = "float32",
    ) -> None:
        self.readout = readout
        self.chunk_rows = chunk_rows
        self.dtype = dtype

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
        chunks = -(-rows // self.chunk_rows)
        mean = 1.0 / tf.cast(tf.maximum(rows, 1), tf.float32)
        items_cast = tf.cast(items, self.dtype)

        def one_chunk(index, loss, query_gradients, item_gradient):
            start = index * self.chunk_rows
            stop = tf.minimum(start + self.chunk_rows, rows)
            chunk = tf.unstack(tf.cast(queries[start:stop], self.dtype), axis=1)
            logits = [tf.matmul(query, items_cast, transpose_b=True) for query in chunk]
            scores = self._read_out(logits)
            probabilities = tf.nn.softmax(tf.cast(scores, tf.float32))
            where = tf.stack([tf.range(stop - start), targets[start:stop]], axis=1)
            of_targets = tf.maximum(tf.gather_nd(probabilities, where), _SMALLEST)
            loss -= mean * tf.reduce_sum(tf.math.log(of_targets))
            by_score = tf.tensor_scatter_nd_sub(probabilities, where, tf.ones([stop - start]))
            by_score = tf.cast(by_score, self.dtype)
            query_gradient = []
            for query, by_logit in zip(chunk, self._shares(logits, scores, by_score), strict=True):
                query_gradient.append(tf.cast(tf.matmul(by_logit, items_cast), tf.float32))
                of_items = tf.matmul(by_logit, query, transpose_a=True)
                item_gradient += mean * tf.cast(of_items, tf.float32)
            query_gradients = query_gradients.write(index, mean * tf.stack(query_gradient, axis=1))
            return index + 1, loss, query_gradients, item_gradient

        query_gradients = tf.TensorArray(
            tf.float32,
            size=chunks,
            infer_shape=False,
            element_shape=[None, interests, dimension],
        )
        _, loss, query_gradients, item_gradient = tf.while_loop(
            lambda index, *_: index < chunks,
            one_chunk,
            (tf.constant(0), tf.constant(0.0), query_gradients, tf.zeros_like(items)),
            parallel_iterations=1,
        )
        query_gradient = tf.cond(chunks > 0, query_gradients.concat, lambda: tf.zeros_like(queries))
        return loss, query_gradient, item_gradient

    def _read_out(self, logits):
        """Reduces the scores of K interests, each `[rows, items]`, to one."""
        highest = functools.reduce(tf.maximum, logits)
        if self.readout == "max":
            return highest
        return highest + tf.math.log(tf.add_n([tf.exp(each - highest) for each in logits]))

    def _shares(self, logits, scores, by_score):
        """Yields the derivative by each interest's logits, from that by the scores."""
        if self.readout == "logsumexp":
            yield from (by_score * tf.exp(each - scores) for each in logits)
            return
        remaining = by_score
        for each in logits[:-1]:
            share = tf.where(each >= scores, remaining, tf.zeros([], remaining.dtype))
            remaining -= share
            yield share
        yield remaining
