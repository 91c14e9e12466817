"""Softmax cross-entropy over the whole catalogue, with bounded memory."""

from typing import Literal

import tensorflow as tf


def readout_scores(
    logits: tf.Tensor, readout: Literal["max", "logsumexp"]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reduces K interest scores of an item to one.

    Args:
      logits: float `[n, K, items]`.
      readout: `max`, as at serving, or its smooth upper bound `logsumexp`.

    Returns:
      Scores, float `[n, items]`, and their derivatives by the logits, float `[n, K, items]`.
    """
    if readout == "max":
        scores = tf.reduce_max(logits, axis=1)
        shares = tf.cast(tf.equal(logits, scores[:, tf.newaxis]), logits.dtype)
        return scores, shares / tf.reduce_sum(shares, axis=1, keepdims=True)
    scores = tf.reduce_logsumexp(logits, axis=1)
    return scores, tf.exp(logits - scores[:, tf.newaxis])


class CatalogueSoftmax:
    """Mean cross-entropy of targets against every item of the catalogue.

    Rows are taken in chunks, and each chunk's gradient is computed beside its loss: scores of one
    chunk, `[chunk_rows, K, items]`, are all that is ever in memory, and none is computed twice.
    The price is that gradients of the gradient do not exist.

    Args:
      readout: How K interest scores of an item become one.
      chunk_rows: Rows whose scores are in memory at once.

    Reference: `docs/model.md`, section 3.
    """

    def __init__(self, readout: Literal["max", "logsumexp"] = "max", chunk_rows: int = 512) -> None:
        self.readout = readout
        self.chunk_rows = chunk_rows

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
        rows, interests, dimension = tf.unstack(tf.shape(queries))
        chunks = -(-rows // self.chunk_rows)
        mean = 1.0 / tf.cast(tf.maximum(rows, 1), tf.float32)

        def one_chunk(index, loss, query_gradients, item_gradient):
            start = index * self.chunk_rows
            stop = tf.minimum(start + self.chunk_rows, rows)
            flat = tf.reshape(queries[start:stop], [-1, dimension])
            logits = tf.reshape(
                tf.matmul(flat, items, transpose_b=True), [stop - start, interests, -1]
            )
            scores, shares = readout_scores(logits, self.readout)
            log_probabilities = tf.nn.log_softmax(scores)
            where = tf.stack([tf.range(stop - start), targets[start:stop]], axis=1)
            loss -= mean * tf.reduce_sum(tf.gather_nd(log_probabilities, where))
            by_score = tf.tensor_scatter_nd_sub(
                tf.exp(log_probabilities), where, tf.ones([stop - start])
            )
            by_logit = tf.reshape(mean * by_score[:, tf.newaxis] * shares, [tf.shape(flat)[0], -1])
            query_gradients = query_gradients.write(index, tf.matmul(by_logit, items))
            item_gradient += tf.matmul(by_logit, flat, transpose_a=True)
            return index + 1, loss, query_gradients, item_gradient

        query_gradients = tf.TensorArray(
            tf.float32, size=chunks, infer_shape=False, element_shape=[None, queries.shape[2]]
        )
        _, loss, query_gradients, item_gradient = tf.while_loop(
            lambda index, *_: index < chunks,
            one_chunk,
            (tf.constant(0), tf.constant(0.0), query_gradients, tf.zeros_like(items)),
            parallel_iterations=1,
        )
        query_gradient = tf.cond(
            chunks > 0,
            lambda: tf.reshape(query_gradients.concat(), tf.shape(queries)),
            lambda: tf.zeros_like(queries),
        )
        return loss, query_gradient, item_gradient
