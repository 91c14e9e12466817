"""The softmaxes of two views and of both together, from one product of each view."""

from collections.abc import Sequence

import tensorflow as tf

from bivrec_tf.losses.chunks import (
    SMALLEST_SUM,
    Gradients,
    in_chunks,
    longest,
    lowered_scores,
    of_mixture,
    of_targets,
    rows_of_chunk,
    share_of_interests,
    side_by_side,
)

# Of the sum of products of two roots. A root too small for float32 is 0 under another of up to
# e^30: a sum above this has not lost what counts, and factors by it stay within float32.
_SMALLEST_COMMON_SUM = 1e-13


class FusedViewsSoftmax:
    """Three `CatalogueSoftmax("logsumexp")`: of each of two views, and of the mean of their scores.

    The third needs no products of its own. With the roots `e_v = exp(s_v / 2)` of the exponentials
    of two views' scores, `e_1^2`, `e_2^2` and `e_1 e_2` are what the three softmaxes sum; and their
    gradients by the scores of one view are added before the products that make gradients of
    queries and of items from them. Six products in place of twelve. Computed in float32; where
    views disagree beyond what float32 can sum, a chunk is done again as three.

    Of a chunk nine arrays of scores may be in memory at once: more speed for more of it.

    Args:
      chunk_rows: See `CatalogueSoftmax`; of the scores of each view.

    Reference: `docs/model.md`, section 4, `docs/decisions/0028-one-product-of-each-view.md`.
    """

    def __init__(self, chunk_rows: int | None = None) -> None:
        self.chunk_rows = chunk_rows

    def __call__(
        self,
        queries: Sequence[tf.Tensor],
        items: Sequence[tf.Tensor],
        targets: tf.Tensor,
        weights: Sequence[float],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the losses.

        Args:
          queries: float `[n, K, D]` of both views, already divided by the temperature.
          items: float `[items, D]` of both views, without padding.
          targets: int `[n]`, indices into the items.
          weights: Three: of the losses of the first view, of the second, and of both together.

        Returns:
          The weighted sum of the losses, a float32 scalar; the three losses, float32 `[3]`, to
          look at: they have no gradient. All are 0 when `n` is 0.
        """
        targets = tf.cast(targets, tf.int32)
        cast = [tf.cast(of, tf.float32) for of in (*queries, *items)]

        @tf.custom_gradient
        def fused(first_queries, second_queries, first_items, second_items):
            found = self._losses_and_gradients(
                (first_queries, second_queries), (first_items, second_items), targets, weights
            ).mean()

            def gradient(upstream, _):
                return [upstream * each for each in (*found.of_queries, *found.of_items)]

            return (tf.tensordot(found.loss, tf.constant(weights), 1), found.loss), gradient

        total, losses = fused(*cast)
        return total, tf.stop_gradient(losses)

    def _losses_and_gradients(self, queries, items, targets, weights) -> Gradients:
        chunk_rows = rows_of_chunk(
            self.chunk_rows, tf.shape(items[0])[0], queries[0].shape[1], "float32"
        )
        furthest = [longest(of) for of in items]

        def of_chunk(start, stop):
            rows = tuple(query[start:stop] for query in queries)
            return _of_chunk(rows, items, furthest, weights)

        def targets_of(queries, items):
            return of_targets(queries, items, targets)

        return in_chunks(of_chunk, chunk_rows, queries, _three(targets_of, queries, items, weights))


def _three(of_task, queries, items, weights) -> Gradients:
    """The gradients of three tasks, each computed by itself, added up with their weights."""
    sizes = [query.shape[2] for query in queries]
    both = of_task(*side_by_side(queries, items))
    losses, of_queries, of_items = [], [], []
    from_both = zip(
        tf.split(both.of_queries[0], sizes, axis=2),
        tf.split(both.of_items[0], sizes, axis=1),
        strict=True,
    )
    for query, of, weight, (also_query, also_items) in zip(
        queries, items, weights[:2], from_both, strict=True
    ):
        own = of_task(query, of)
        losses.append(own.loss)
        of_queries.append(weight * own.of_queries[0] + 0.5 * weights[2] * also_query)
        of_items.append(weight * own.of_items[0] + weights[2] * also_items)
    return Gradients(tf.stack([*losses, both.loss]), tuple(of_queries), tuple(of_items))


def _of_chunk(queries, items, furthest, weights) -> Gradients:
    """The part of all items, of rows that go through together."""
    interests = queries[0].shape[1]
    flat = [tf.reshape(query, [-1, query.shape[2]]) for query in queries]
    scored = [lowered_scores(*each) for each in zip(flat, items, furthest, strict=True)]
    roots = [tf.exp(0.5 * scores) for scores, _ in scored]
    products = (tf.square(roots[0]), tf.square(roots[1]), roots[0] * roots[1])
    sums = [tf.reduce_sum(product, axis=1) for product in products]
    lower = [lower for _, lower in scored]

    def from_roots():
        losses, factors = [], []
        for total, by, weight in zip(sums, [*lower, sum(lower) / 2], weights, strict=True):
            log_normaliser = tf.reshape(tf.math.log(total) + by, [-1, interests])
            losses.append(tf.reduce_sum(tf.reduce_logsumexp(log_normaliser, axis=1)))
            factors.append(weight * share_of_interests(log_normaliser) / total[:, tf.newaxis])
        half = 0.5 * factors[2]
        of_scores = [
            roots[own] * (factors[own] * roots[own] + half * roots[1 - own]) for own in (0, 1)
        ]
        of_queries = tuple(
            tf.reshape(tf.matmul(each, of), tf.shape(query))
            for each, of, query in zip(of_scores, items, queries, strict=True)
        )
        of_items = tuple(
            tf.matmul(each, of, transpose_a=True) for each, of in zip(of_scores, flat, strict=True)
        )
        return Gradients(tf.stack(losses), of_queries, of_items)

    def one_by_one(queries, items):
        return of_mixture(queries, items, longest(items))

    enough = (SMALLEST_SUM, SMALLEST_SUM, _SMALLEST_COMMON_SUM)
    held = [tf.reduce_all(total > least) for total, least in zip(sums, enough, strict=True)]
    return tf.cond(
        tf.reduce_all(held), from_roots, lambda: _three(one_by_one, queries, items, weights)
    )
