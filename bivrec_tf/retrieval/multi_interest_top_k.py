"""Exact top-k and exact ranks under several interests and two views."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_recommenders.layers.factorized_top_k import TopK

from bivrec_tf.features import VIEWS
from bivrec_tf.retrieval.scores import best_of_interests, count_better, mask_of

ID, MM = VIEWS

# Tables of up to so many blocks are ranked in one piece.
_BLOCKS_AT_ONCE = 8


class SearchResult(NamedTuple):
    """The best items of `n` queries, best first.

    Attributes:
      scores: float32 `[n, k]`; the dtype's minimum where fewer than k items could be recommended.
      rows: int32 `[n, k]`; 0 there.
      interest: int32 `[n, k]`, the interest with the greatest score for the item.
      view_scores: float32 `[n, k, 2]`, in the order of `features.VIEWS`; 0 for a view that the
        index, or the item, does not have.
    """

    scores: tf.Tensor
    rows: tf.Tensor
    interest: tf.Tensor
    view_scores: tf.Tensor


class MultiInterestTopK(TopK):
    """Scores every item of the catalogue and keeps the k best.

    The score of an item is `a max_k z_id,k . e_id + (1 - a) max_k z_mm,k . e_mm` (plus an offset
    of its own). An item without an id row is scored by the multimodal view alone. The table is
    taken in blocks, exclusions are masked in every block before the cut, and ties go to the lower
    row, so k results come back whenever k exist and runs agree.

    Args:
      k: Default number of results.
      block_size: Items scored at once: memory is `n * K * block_size` floats.
      **kwargs: Passed to the base class.

    Example:
      >>> index = MultiInterestTopK(k=1).index(tf.constant([[1., 0.], [0., 1.]]))
      >>> scores, rows = index(tf.constant([[[0., 2.], [1., 0.]]]))
      >>> int(rows[0, 0])
      1

    Reference: `docs/model.md`, section 5.
    """

    def __init__(self, k: int = 10, block_size: int = 4096, **kwargs: Any) -> None:
        super().__init__(k=k, **kwargs)
        self._block_size = block_size
        self._tables: dict[str, tf.Variable] = {}
        self._identifiers: tf.Variable | None = None
        # Set by `index`; until then `_tables` is empty and every query is refused.
        self._warm: Any = None
        self._available: Any = None
        self._offsets: Any = None
        self._id_weight: Any = None
        self._num_rows = 0

    def index(
        self,
        candidates: tf.Tensor | Mapping[str, tf.Tensor],
        identifiers: tf.Tensor | None = None,
        *,
        warm: tf.Tensor | None = None,
        available: tf.Tensor | None = None,
        offsets: tf.Tensor | None = None,
        id_weight: float = 0.5,
        has_padding: bool = False,
    ) -> "MultiInterestTopK":
        """Builds the index.

        Args:
          candidates: float `[rows, D]`, or one such table for each of the views `id` and `mm`.
          identifiers: `[rows]`, what `call` returns for a row; rows themselves without it.
          warm: bool `[rows]`, whether an item has an id row; all without it.
          available: bool `[rows]`, whether an item may be a result; all without it.
          offsets: float `[rows]`, added to the scores.
          id_weight: The weight `a` when a query brings none.
          has_padding: Whether row 0 is padding and never a result.

        Returns:
          Self.

        Raises:
          ValueError: The tables are empty, of unequal length, or of views that do not exist.
        """
        tables = dict(candidates) if isinstance(candidates, Mapping) else {ID: candidates}
        if not tables or set(tables) - set(VIEWS):
            raise ValueError(f"expected tables of the views {VIEWS}, found {sorted(tables)}")
        lengths = {int(table.shape[0]) for table in tables.values()}
        if len(lengths) != 1:
            raise ValueError(f"expected tables of one length, found {sorted(lengths)}")
        self._num_rows = lengths.pop()
        if identifiers is not None and int(tf.shape(identifiers)[0]) != self._num_rows:
            raise ValueError(
                f"expected {self._num_rows} identifiers, found {int(tf.shape(identifiers)[0])}"
            )

        def frozen(value: tf.Tensor) -> tf.Variable:
            return tf.Variable(value, trainable=False)

        self._tables = {view: frozen(tf.cast(table, tf.float32)) for view, table in tables.items()}
        self._identifiers = None if identifiers is None else frozen(identifiers)
        warm = tf.ones([self._num_rows]) if warm is None else tf.cast(warm, tf.float32)
        self._warm = frozen(warm)
        available = tf.ones([self._num_rows], tf.bool) if available is None else available
        self._available = frozen(tf.cast(available, tf.bool))
        self._offsets = frozen(tf.zeros([self._num_rows]) if offsets is None else offsets)
        self._id_weight = frozen(tf.constant(id_weight, tf.float32))
        self._has_padding = has_padding
        self._reset_tf_function_cache()
        return self

    def state(self) -> list[tf.Variable]:
        """Returns the variables of the index, for a module that exports it to track."""
        named = [
            self._identifiers,
            self._warm,
            self._available,
            self._offsets,
            self._id_weight,
        ]
        return [*self._tables.values(), *(variable for variable in named if variable is not None)]

    def table(self, view: str) -> tf.Tensor:
        """Returns the item vectors of a view, float32 `[rows, D]`."""
        return self._tables[view].value()

    def variable(self, view: str) -> tf.Variable:
        """Returns the variable behind `table`."""
        return self._tables[view]

    @property
    def id_weight(self) -> tf.Tensor:
        """The weight `a` when a query brings none, float32 scalar."""
        return self._id_weight.value()

    def assign(self, candidates: Mapping[str, tf.Tensor], offsets: tf.Tensor) -> None:
        """Replaces the vectors and offsets of an index, in place and without retracing.

        Args:
          candidates: As for `index`, of the same views and shapes.
          offsets: float `[rows]`.
        """
        for view, table in candidates.items():
            self._tables[view].assign(tf.cast(table, tf.float32))
        self.set_items(offsets=offsets)

    def set_items(
        self,
        warm: tf.Tensor | None = None,
        available: tf.Tensor | None = None,
        offsets: tf.Tensor | None = None,
    ) -> None:
        """Replaces what is known of the items beside their vectors; see `index`."""
        if warm is not None:
            self._warm.assign(tf.cast(warm, tf.float32))
        if available is not None:
            self._available.assign(available)
        if offsets is not None:
            self._offsets.assign(offsets)

    def call(self, queries, k=None):
        """Returns scores and identifiers `[n, k]` of the best items; see `TopK.call`."""
        result = self.search(queries, k=k)
        return result.scores, self._identify(result.rows)

    def query_with_exclusions(self, queries, exclusions, k=None):
        """As `call`, never returning an identifier of `exclusions`, `[n, E]`.

        Unlike the base class, which lowers scores by a constant, this masks excluded items.
        """
        if self._identifiers is None:
            rows = tf.cast(exclusions, tf.int32)
        else:
            matches = tf.equal(exclusions[:, :, tf.newaxis], self._identifiers)
            found = tf.reduce_any(matches, axis=2)
            rows = tf.where(found, tf.argmax(matches, axis=2, output_type=tf.int32), -1)
        result = self.search(queries, excluded_rows=rows, k=k)
        return result.scores, self._identify(result.rows)

    def is_exact(self) -> bool:
        """Returns True: every item is scored."""
        return True

    def search(
        self,
        queries: tf.Tensor | Mapping[str, tf.Tensor],
        excluded_rows: tf.Tensor | None = None,
        k: int | tf.Tensor | None = None,
        id_weight: tf.Tensor | float | None = None,
    ) -> SearchResult:
        """Finds the best items.

        Args:
          queries: float `[n, K, D]` (or `[n, D]`) interests, or one such tensor for each view.
          excluded_rows: int `[n, E]`, rows never to return; negative ones mean nothing.
          k: Number of results, a scalar.
          id_weight: The weight `a`, a scalar in [0, 1].

        Returns:
          The best `min(k, rows)` items.

        Raises:
          ValueError: The index was not built, or the queries are not of its views.
        """
        views = self._views(queries)
        id_weight = self._weight(id_weight)
        count = tf.shape(next(iter(views.values())))[0]
        excluded_rows = self._excluded(excluded_rows, count)
        k = tf.minimum(tf.cast(self._k if k is None else k, tf.int32), self._num_rows)

        def merge(start, best_scores, best_rows):
            stop = tf.minimum(start + self._block_size, self._num_rows)
            scores = self._block_scores(views, id_weight, start, stop)
            open_to = ~mask_of(excluded_rows, start, stop) & self._available[start:stop]
            scores = tf.where(open_to, scores, scores.dtype.min)
            rows = tf.broadcast_to(tf.range(start, stop), tf.shape(scores))
            # The best so far come first: top_k keeps the earlier of equals, so the lower row.
            scores = tf.concat([best_scores, scores], axis=1)
            rows = tf.concat([best_rows, rows], axis=1)
            best_scores, chosen = tf.math.top_k(scores, k=k)
            return stop, best_scores, tf.gather(rows, chosen, batch_dims=1)

        _, scores, rows = tf.while_loop(
            lambda start, *_: start < self._num_rows,
            merge,
            (
                tf.constant(0),
                tf.fill([count, k], tf.float32.min),
                tf.zeros([count, k], tf.int32),
            ),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None]),
            ),
            parallel_iterations=1,
        )
        rows = tf.where(scores > tf.float32.min, rows, 0)
        interest, view_scores = self._explain(views, id_weight, rows)
        return SearchResult(scores, rows, interest, view_scores)

    def ranks(
        self,
        queries: Mapping[str, tf.Tensor],
        target_rows: tf.Tensor,
        excluded_rows: tf.Tensor | None = None,
        id_weight: tf.Tensor | float | None = None,
    ) -> tf.Tensor:
        """Ranks targets among all items that are not excluded.

        Args:
          queries: As for `search`.
          target_rows: int `[n, T]`; 0 is padding.
          excluded_rows: int `[n, E]`; a target is ranked even where it is excluded itself.
          id_weight: As for `search`.

        Returns:
          int32 `[n, T]`, 1 for the best item; 0 for padding; the dtype's maximum for items that
          are not available.
        """
        views = self._views(queries)
        id_weight = self._weight(id_weight)
        excluded_rows = self._excluded(excluded_rows, tf.shape(target_rows)[0])

        def count(scores, target_scores, start, stop):
            open_to = ~mask_of(excluded_rows, start, stop) & self._available[start:stop]
            return count_better(scores, open_to, target_scores, target_rows, start)

        if self._num_rows <= _BLOCKS_AT_ONCE * self._block_size:
            # Small enough to have all scores at once, and to compute each but once.
            scores = self._block_scores(views, id_weight, 0, self._num_rows)
            target_scores = tf.gather(scores, target_rows, batch_dims=1)
            better = count(scores, target_scores, 0, self._num_rows)
        else:
            target_scores = self._scores_of(views, target_rows, id_weight)

            def add_block(start, better):
                stop = tf.minimum(start + self._block_size, self._num_rows)
                scores = self._block_scores(views, id_weight, start, stop)
                return stop, better + count(scores, target_scores, start, stop)

            _, better = tf.while_loop(
                lambda start, _: start < self._num_rows,
                add_block,
                (tf.constant(0), tf.zeros_like(target_rows)),
                parallel_iterations=1,
            )
        ranks = tf.where(tf.gather(self._available, target_rows), better + 1, tf.int32.max)
        return tf.where(target_rows > 0, ranks, 0)

    def _scores_of(self, views, rows, id_weight):
        """Scores of given rows, float `[n, T]`, out of the same products that `search` compares.

        A product of another shape rounds otherwise, and would break ties by rounding errors.
        """

        def pick(start, found):
            stop = tf.minimum(start + self._block_size, self._num_rows)
            scores = self._block_scores(views, id_weight, start, stop)
            inside = (rows >= start) & (rows < stop)
            column = tf.where(inside, rows - start, 0)
            return stop, tf.where(inside, tf.gather(scores, column, batch_dims=1), found)

        _, scores = tf.while_loop(
            lambda start, _: start < self._num_rows,
            pick,
            (tf.constant(0), tf.zeros(tf.shape(rows))),
            parallel_iterations=1,
        )
        return scores

    def _views(self, queries) -> dict[str, tf.Tensor]:
        if not self._tables:
            raise ValueError("the index is empty: call index() with the item table first")
        views = dict(queries) if isinstance(queries, Mapping) else {ID: queries}
        if set(views) != set(self._tables):
            raise ValueError(
                f"expected queries of the views {sorted(self._tables)}, found {sorted(views)}"
            )
        views = {view: tf.cast(query, tf.float32) for view, query in views.items()}
        return {view: q if q.shape.rank == 3 else q[:, tf.newaxis] for view, q in views.items()}

    def _weight(self, id_weight) -> tf.Tensor:
        return tf.cast(self._id_weight if id_weight is None else id_weight, tf.float32)

    def _excluded(self, excluded_rows, count) -> tf.Tensor:
        if excluded_rows is None:
            excluded_rows = tf.zeros([count, 0], tf.int32)
        if not self._has_padding:
            return excluded_rows
        return tf.concat([excluded_rows, tf.zeros([count, 1], tf.int32)], axis=1)

    def _combine(self, scores, id_weight, warm, offsets):
        if len(scores) == 1:
            return next(iter(scores.values())) + offsets
        weight = id_weight * warm
        return weight * scores[ID] + (1.0 - weight) * scores[MM] + offsets

    def _block_scores(self, views, id_weight, start, stop):
        scores = {}
        for view, query in views.items():
            scores[view] = best_of_interests(query, self._tables[view][start:stop])
        return self._combine(scores, id_weight, self._warm[start:stop], self._offsets[start:stop])

    def _interest_scores(self, views, rows):
        """Scores of given rows by interest: float `[n, K, m]` for every view."""
        return {
            view: tf.matmul(query, tf.gather(self._tables[view], rows), transpose_b=True)
            for view, query in views.items()
        }

    def _explain(self, views, id_weight, rows):
        by_interest = self._interest_scores(views, rows)
        warm = tf.gather(self._warm, rows)
        interest = tf.argmax(
            self._combine(by_interest, id_weight, warm[:, tf.newaxis], 0.0),
            axis=1,
            output_type=tf.int32,
        )
        view_scores = []
        for view in VIEWS:
            if view not in by_interest:
                view_scores.append(tf.zeros(tf.shape(rows)))
                continue
            best = tf.reduce_max(by_interest[view], axis=1)
            view_scores.append(best * warm if view == ID else best)
        return interest, tf.stack(view_scores, axis=2)

    def _identify(self, rows):
        return rows if self._identifiers is None else tf.gather(self._identifiers, rows)
