"""The best of a table that is scored block by block, and the ranks of given rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from bivrec_tf.retrieval.scores import NOTHING, best_of_block, count_better, mask_of, without


class Items(NamedTuple):
    """What the scores of items depend on, beside their vectors.

    Attributes:
      warm: float32, 1 for items with an id row, `[m]` or `[n, m]`.
      offsets: float32 of the same shape, or `[C, ...]` for several choices.
    """

    warm: tf.Tensor
    offsets: tf.Tensor


BlockScores: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Gives scores, float `[n, stop - start]`, of the rows from `start` to before `stop`; minus
infinity for what is no result."""
Products: TypeAlias = Callable[[tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]
"""Gives each view's scores alone, float `[n, stop - start]`, of the rows of a block."""
Combine: TypeAlias = Callable[[Mapping[str, tf.Tensor], tf.Tensor, Items], tf.Tensor]
"""Gives the scores that a weight of the id view makes of views' scores `[n, m]` of items."""

# Tables of up to so many blocks are ranked with all scores in memory.
_BLOCKS_AT_ONCE = 8


def streamed_top_k(
    block_scores: BlockScores,
    num_rows: int,
    block_size: tf.Tensor | int,
    excluded_rows: tf.Tensor,
    k: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the k greatest scores of each query and their rows, best first.

    Of equal scores the lower row comes first.

    Args:
      block_scores: Scores of a block.
      num_rows: Rows of the table.
      block_size: Rows scored at once.
      excluded_rows: int `[n, E]`, rows never to return; negative ones mean nothing.
      k: int32 scalar, at most `num_rows`.

    Returns:
      Scores, float32 `[n, k]`, the dtype's minimum where fewer than k rows could be results; and
      rows, int32 `[n, k]`, 0 there.
    """
    count = tf.shape(excluded_rows)[0]

    def merge(start, stop, best_scores, best_rows):
        scores = without(block_scores(start, stop), excluded_rows, start, stop)
        found, columns = best_of_block(scores, k)
        # The best so far come first: top_k keeps the earlier of equals, so the lower row.
        scores = tf.concat([best_scores, found], axis=1)
        rows = tf.concat([best_rows, start + columns], axis=1)
        best_scores, chosen = tf.math.top_k(scores, k=k)
        return best_scores, tf.gather(rows, chosen, batch_dims=1)

    nothing_yet = (tf.fill([count, k], NOTHING), tf.zeros([count, k], tf.int32))
    scores, rows = _over_blocks(merge, nothing_yet, num_rows, block_size)
    is_result = scores > NOTHING
    return tf.where(is_result, scores, scores.dtype.min), tf.where(is_result, rows, 0)


def streamed_ranks(
    views: Sequence[str],
    products: Products,
    combine: Combine,
    id_weights: tf.Tensor,
    items: Items,
    num_rows: int,
    block_size: tf.Tensor,
    excluded_rows: tf.Tensor,
    available: tf.Tensor,
    target_rows: tf.Tensor,
) -> tf.Tensor:
    """Returns the places that rows would have in `streamed_top_k` under every choice.

    Scores come out of the very products of a search: one of another shape rounds otherwise, and
    items of equal vectors could change places. All choices share them.

    Args:
      views: Those that `products` gives.
      products: Views' scores of a block.
      combine: What a choice makes of them.
      id_weights: float32 `[C]`, the weight of the id view in every choice.
      items: All items, offsets `[C, num_rows]`.
      num_rows: Rows of the table.
      block_size: Rows multiplied at once.
      excluded_rows: int `[n, E]`, rows that stand before nothing; negative ones mean nothing.
      available: bool `[num_rows]`; the others stand before nothing either.
      target_rows: int32 `[n, T]`.

    Returns:
      int32 `[C, n, T]`, 1 for the best.
    """
    count = tf.shape(excluded_rows)[0]

    of_target_items = Items(
        tf.gather(items.warm, target_rows), tf.gather(items.offsets, target_rows, axis=1)
    )

    def better(scores, of_targets, start, stop):
        open_to = ~mask_of(excluded_rows, start, stop) & available[start:stop]
        warm = items.warm[start:stop]

        def of_choice(choice):
            id_weight, offsets, target_offsets = choice
            combined = combine(scores, id_weight, Items(warm, offsets))
            target_items = Items(of_target_items.warm, target_offsets)
            target_scores = combine(of_targets, id_weight, target_items)
            return count_better(combined, open_to, target_scores, target_rows, start)

        # Of the block alone: to go through choices copies all that is given for each.
        choices = (id_weights, items.offsets[:, start:stop], of_target_items.offsets)
        if id_weights.shape[0] == 1:
            return of_choice(tuple(part[0] for part in choices))[tf.newaxis]
        # One after the other: the scores of each are as many as a view's.
        signature = tf.TensorSpec([None, None], tf.int32)
        return tf.map_fn(of_choice, choices, fn_output_signature=signature, parallel_iterations=1)

    def over_blocks(step, width):
        """`step(start, stop, found)` of dictionaries by view, of matrices of a width at first."""

        def of_tuples(start, stop, *found):
            after = step(start, stop, dict(zip(views, found, strict=True)))
            return tuple(after[view] for view in views)

        nothing_yet = tuple(tf.zeros([count, width]) for _ in views)
        found = _over_blocks(of_tuples, nothing_yet, num_rows, block_size)
        return dict(zip(views, found, strict=True))

    def with_all_scores():
        def add(start, stop, found):
            block = products(start, stop)
            return {view: tf.concat([found[view], block[view]], axis=1) for view in views}

        scores = over_blocks(add, 0)
        of_targets = {view: tf.gather(scores[view], target_rows, batch_dims=1) for view in views}
        return better(scores, of_targets, 0, num_rows)

    def in_two_passes():
        def pick(start, stop, found):
            inside = (target_rows >= start) & (target_rows < stop)
            column = tf.where(inside, target_rows - start, 0)
            block = products(start, stop)
            return {
                view: tf.where(inside, tf.gather(block[view], column, batch_dims=1), found[view])
                for view in views
            }

        of_targets = over_blocks(pick, tf.shape(target_rows)[1])

        def add(start, stop, ahead):
            return (ahead + better(products(start, stop), of_targets, start, stop),)

        none = tf.zeros([tf.size(id_weights), *tf.unstack(tf.shape(target_rows))], tf.int32)
        (ahead,) = _over_blocks(add, (none,), num_rows, block_size)
        return ahead

    small = num_rows <= _BLOCKS_AT_ONCE * block_size
    return tf.cond(small, with_all_scores, in_two_passes) + 1


def _over_blocks(
    step: Callable[..., tuple[tf.Tensor, ...]],
    state: tuple[tf.Tensor, ...],
    num_rows: int,
    block_size: tf.Tensor | int,
) -> Any:
    """Returns what is left of tensors after `state = step(start, stop, *state)` of every block."""

    def body(start, *state):
        stop = tf.minimum(start + block_size, num_rows)
        return (stop, *step(start, stop, *state))

    _, *state = tf.while_loop(
        lambda start, *_: start < num_rows,
        body,
        (tf.constant(0), *state),
        shape_invariants=(
            tf.TensorShape([]),
            *[tf.TensorShape([None] * part.shape.rank) for part in state],
        ),
        parallel_iterations=1,
    )
    return state
