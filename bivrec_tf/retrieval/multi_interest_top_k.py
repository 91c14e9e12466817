"""Exact top-k and exact ranks under several interests and two views."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_recommenders.layers.factorized_top_k import TopK

from bivrec_tf.features import VIEWS
from bivrec_tf.retrieval.item_table import ItemTable, StoredVectors, TableDtype
from bivrec_tf.retrieval.scores import NOTHING, best_of_interests
from bivrec_tf.retrieval.search_result import SearchResult
from bivrec_tf.retrieval.stream import Items, streamed_ranks, streamed_top_k

ID, MM = VIEWS

# Scores that are in memory at once, over all queries and interests, where the caller does not say:
# about what a processor's cache holds.
_SCORES_OF_BLOCK = 2**20
_SMALLEST_BLOCK = 1024


class MultiInterestTopK(TopK):
    """Scores every item of the catalogue and keeps the k best.

    The score of an item is `a max_k z_id,k . e_id + (1 - a) max_k z_mm,k . e_mm` (plus an offset
    of its own). An item without an id row is scored by the multimodal view alone. The table is
    taken in blocks, exclusions are masked in every block before the cut, and ties go to the lower
    row, so k results come back whenever k exist and runs agree.

    Args:
      k: Default number of results.
      block_size: Items scored at once: memory is `n * K * block_size` floats. By default as many
        as make a million scores.
      **kwargs: Passed to the base class.

    Example:
      >>> index = MultiInterestTopK(k=1).index(tf.constant([[1., 0.], [0., 1.]]))
      >>> scores, rows = index(tf.constant([[[0., 2.], [1., 0.]]]))
      >>> int(rows[0, 0])
      1

    Reference: `docs/model.md`, section 5.
    """

    def __init__(self, k: int = 10, block_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(k=k, **kwargs)
        self._block_size = block_size
        self._tables: dict[str, ItemTable] = {}
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
        dtype: TableDtype = "float32",
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
          dtype: What the tables are kept in, see `ItemTable`. Scores are float32.

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

        self._tables = {view: ItemTable(table, dtype) for view, table in tables.items()}
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
        of_tables = [variable for table in self._tables.values() for variable in table.variables]
        return [*of_tables, *(variable for variable in named if variable is not None)]

    def table(self, view: str) -> ItemTable:
        """Returns the item vectors of a view."""
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
            self._tables[view].assign(table)
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
        closed: tf.Tensor | None = None,
    ) -> SearchResult:
        """Finds the best items.

        Args:
          queries: float `[n, K, D]` (or `[n, D]`) interests, or one such tensor for each view.
          excluded_rows: int `[n, E]`, rows never to return; negative ones mean nothing.
          k: Number of results, a scalar.
          id_weight: The weight `a`, a scalar in [0, 1].
          closed: bool `[rows]`, items that are no result for anybody this time.

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
        nobody = tf.zeros([self._num_rows], tf.bool)
        items = self._read(nobody if closed is None else closed)
        scores, rows = streamed_top_k(
            lambda start, stop: self._block_scores(views, id_weight, items, start, stop),
            self._num_rows,
            self._rows_of_block(views),
            excluded_rows,
            k,
        )
        interest, view_scores = self._explain(views, id_weight, items, rows)
        return SearchResult(scores, rows, interest, view_scores)

    def explain(
        self,
        queries: tf.Tensor | Mapping[str, tf.Tensor],
        rows: tf.Tensor,
        id_weight: tf.Tensor | float | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Says what `search` says of its results for rows of the caller's choice, int `[n, m]`.

        Returns:
          `interest` and `view_scores`, see `SearchResult`.
        """
        views = self._views(queries)
        return self._explain(views, self._weight(id_weight), self._read(), rows)

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
        id_weights = self._weight(id_weight)[tf.newaxis]
        offsets = self._offsets.value()[tf.newaxis]
        return self.ranks_of_choices(queries, target_rows, id_weights, offsets, excluded_rows)[0]

    def ranks_of_choices(
        self,
        queries: Mapping[str, tf.Tensor],
        target_rows: tf.Tensor,
        id_weights: tf.Tensor,
        offsets: tf.Tensor,
        excluded_rows: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Ranks targets as `ranks` does, under several weights and offsets for one's price.

        Args:
          queries: As for `search`.
          target_rows: As for `ranks`.
          id_weights: float32 `[C]`, the weight `a` of every choice.
          offsets: float32 `[C, rows]`, what each adds to the scores, in place of the index's own.
          excluded_rows: As for `ranks`.

        Returns:
          int32 `[C, n, T]`.
        """
        views = self._views(queries)
        excluded_rows = self._excluded(excluded_rows, tf.shape(target_rows)[0])
        items, available = self._read(), self._available.value()

        ranks = streamed_ranks(
            tuple(views),
            lambda start, stop: self._view_scores(views, items, start, stop),
            self._combine,
            id_weights,
            Items(items.warm, offsets),
            self._num_rows,
            self._rows_of_block(views),
            excluded_rows,
            available,
            target_rows,
        )
        ranks = tf.where(tf.gather(available, target_rows), ranks, tf.int32.max)
        return tf.where(target_rows > 0, ranks, 0)

    def _rows_of_block(self, views) -> tf.Tensor:
        if self._block_size is not None:
            return tf.constant(self._block_size)
        shape = tf.shape(next(iter(views.values())))
        rows = _SCORES_OF_BLOCK // tf.maximum(shape[0] * shape[1], 1)
        return tf.maximum(rows, _SMALLEST_BLOCK)

    def _read(self, closed: tf.Tensor | None = None) -> "_Read":
        """Reads the variables once; an item that is no result has an offset of minus infinity."""
        offsets = self._offsets.value()
        if closed is not None:
            offsets = tf.where(closed | ~self._available, NOTHING, offsets)
        tables = {view: table.read() for view, table in self._tables.items()}
        return _Read(tables, self._warm.value(), offsets)

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

    def _combine(self, scores, id_weight, items: Items):
        if len(scores) == 1:
            return next(iter(scores.values())) + items.offsets
        weight = id_weight * items.warm
        return weight * scores[ID] + (1.0 - weight) * scores[MM] + items.offsets

    def _view_scores(self, views, items, start, stop):
        return {
            view: best_of_interests(query, items.tables[view].block(start, stop))
            for view, query in views.items()
        }

    def _block_scores(self, views, id_weight, items, start, stop):
        scores = self._view_scores(views, items, start, stop)
        block = Items(items.warm[start:stop], items.offsets[start:stop])
        return self._combine(scores, id_weight, block)

    def _explain(self, views, id_weight, items, rows):
        by_interest = {
            view: tf.matmul(query, items.tables[view].gather(rows), transpose_b=True)
            for view, query in views.items()
        }
        warm = tf.gather(items.warm, rows)
        interest = tf.argmax(
            self._combine(by_interest, id_weight, Items(warm[:, tf.newaxis], tf.constant(0.0))),
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
        if self._identifiers is None:
            return rows
        return tf.gather(self._identifiers.value(), rows)


class _Read(NamedTuple):
    """What a search reads of the items: their vectors by view, warm or not, and offsets."""

    tables: dict[str, StoredVectors]
    warm: tf.Tensor
    offsets: tf.Tensor
