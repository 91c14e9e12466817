"""Full-ranking evaluation of a model on a held-out split."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.calibration import Asked, Calibrator
from bivrec_tf.graphs import graph_function
from bivrec_tf.metrics import (
    NDCG,
    CatalogueCoverage,
    HitRate,
    RankingMetric,
    Recall,
    ReciprocalRank,
)
from bivrec_tf.models import SequentialRecommender
from bivrec_tf.models.histories import compact

CUT_OFFS = (10, 20, 50)
SELECTION_METRIC = "ndcg_at_10"
"""The validation metric that chooses epochs and weights."""
CALIBRATION_EXAMPLES = 10_000
"""Validation examples that choose weights and the offset of cold items: fewer choose a worse weight
(decision 0017)."""

# Histories that go through the model together.
_GROUP = 64

_NEVER_FOUND = tf.int32.max


def ranking_metrics(cut_offs: Sequence[int] = CUT_OFFS) -> list[RankingMetric]:
    """Returns new metrics: recall, NDCG, hit rate and MRR at every cut-off."""
    kinds = (Recall, NDCG, HitRate, ReciprocalRank)
    return [kind(k) for k in cut_offs for kind in kinds]


class RankingEvaluator:
    """Ranks the whole catalogue for held-out histories.

    The index is built once and renewed in place, so that evaluating after every epoch retraces
    nothing.

    Args:
      model: The model, whose present weights are evaluated at every call.
      filter_seen: Whether items of the history are left out of the ranking, as in serving.
    """

    def __init__(self, model: SequentialRecommender, filter_seen: bool = True) -> None:
        self._model = model
        self._filter_seen = filter_seen
        self._index = model.build_index()
        self._calibrator = Calibrator(model, self._index, filter_seen)
        self._counts = tf.constant(model.catalogue.counts)
        # Not in `evaluate`: Keras calls that within the scope of the devices' strategy.
        self._metrics = ranking_metrics()
        # Shapes are told beforehand: batches differ in both, and a trace costs many batches.
        rows, weight = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        # Called by the two others, which so need no trace of the model of their own.
        self._infer_batch = graph_function(self._queries, input_signature=[rows])
        self._rank_batch = graph_function(self._ranks, input_signature=[rows, rows, weight])
        self._search_batch = graph_function(self._search, input_signature=[rows, weight])

    def _queries(self, history):
        # With the tables of the index: no batch computes them again.
        views: tuple[str, ...] = self._model.config.views
        tables = {view: self._index.table(view) for view in views}
        return {view: of.vectors for view, of in self._model.interests(history, tables).items()}

    def _ranks(self, history, target, id_weight):
        queries, seen = self._infer_batch(history), self._seen(history)
        ranks = self._index.ranks(queries, tf.maximum(target, 0), seen, id_weight)
        ranks = tf.where(target < 0, _NEVER_FOUND, ranks)
        # Of an empty history the served model recommends what is popular.
        has_history = tf.reduce_any(history > 0, axis=1, keepdims=True)
        popular = tf.cond(
            tf.reduce_all(has_history),
            lambda: ranks,
            lambda: popularity_ranks(self._counts, history, target, self._filter_seen),
        )
        return tf.where(has_history, ranks, popular)

    def _seen(self, history):
        return history if self._filter_seen else history[:, :0]

    def _search(self, history, id_weight):
        queries, seen = self._infer_batch(history), self._seen(history)
        rows = self._index.search(queries, seen, max(CUT_OFFS), id_weight).rows
        # Rows stand in the order of popularity.
        popular = tf.range(1, tf.shape(rows)[1] + 1)
        popular = tf.where(popular < self._model.num_rows, popular, 0)
        return tf.where(tf.reduce_any(history > 0, axis=1, keepdims=True), rows, popular)

    def _renew(self, cold_offset: float | None) -> None:
        self._index.assign(self._model.item_tables(), self._model.item_offsets(cold_offset))

    def ranks(
        self,
        batches: tf.data.Dataset,
        id_weight: float | None = None,
        cold_offset: float | None = None,
    ) -> list[tf.Tensor]:
        """Ranks the targets of every batch of `data.evaluation_batches`.

        Args:
          batches: Histories and targets.
          id_weight: Weight of the id view; the model's own without it.
          cold_offset: Added to the scores of cold items; the model's own without it.

        Returns:
          int32 `[n, T]` for every batch: 1 for the best item, 0 for padding.
        """
        self._renew(cold_offset)
        weight = tf.cast(self._model.id_weight if id_weight is None else id_weight, tf.float32)
        found = []
        for batch in batches:
            ranks = np.zeros(batch[features.TARGET].shape, np.int32)
            for places, history, target in groups_of_length(batch):
                ranks[places] = self._rank_batch(history, target, weight)
            found.append(tf.constant(ranks))
        return found

    def evaluate(
        self, batches: tf.data.Dataset, id_weight: float | None = None, coverage: bool = False
    ) -> dict[str, float]:
        """Computes the mean of every ranking metric.

        Args:
          batches: Histories and targets, of `data.evaluation_batches`.
          id_weight: Weight of the id view; the model's own without it.
          coverage: Whether to add catalogue coverage, which costs a search.

        Returns:
          Values by name, such as `ndcg_at_10`.
        """
        for metric in self._metrics:
            metric.reset_state()
        for ranks in self.ranks(batches, id_weight):
            for metric in self._metrics:
                metric.update_state(ranks)
        values = {metric.name: float(metric.result()) for metric in self._metrics}
        if coverage:
            values.update(self.coverage(batches, id_weight))
        return values

    def coverage(
        self, batches: tf.data.Dataset, id_weight: float | None = None
    ) -> dict[str, float]:
        """Computes the share of the catalogue that is recommended to anyone, by cut-off.

        Arguments are those of `evaluate`.
        """
        self._renew(None)
        weight = tf.cast(self._model.id_weight if id_weight is None else id_weight, tf.float32)
        num_items = self._model.catalogue.num_items
        metrics = [CatalogueCoverage(num_items, k) for k in CUT_OFFS]
        for batch in batches:
            for _, history, _ in groups_of_length(batch):
                rows = self._search_batch(history, weight)
                for metric in metrics:
                    metric.update_state(rows)
        return {metric.name: float(metric.result()) for metric in metrics}

    def calibrate(
        self, batches: tf.data.Dataset, cold_item_budget: float = 0.01, popularity: bool = True
    ) -> None:
        """Chooses on validation what stands between views' scores and the ranking, in the model.

        The weights of the id view and of popularity are chosen from grids by `SELECTION_METRIC`,
        among the trained items: the first, the second, and the first again, near by. Then the
        offset of cold items is the greatest at which they, by taking places in the rankings, cost
        warm targets no more than the budget. Where the catalogue has next to no cold items, as
        many warm ones as would matter are ranked as if they were cold. Interests are inferred
        once; at most about `CALIBRATION_EXAMPLES` examples take part.

        Args:
          batches: Histories and targets, of `data.evaluation_batches`.
          cold_item_budget: Share of the warm targets' Recall@20 and NDCG@20 that may be lost.
          popularity: Whether popularity has a weight; else it is 0.
        """
        self._model.popularity_weight.assign(0.0)
        if popularity or "mm" in self._model.config.views:
            # Else there is no weight, and the id view alone knows nothing of cold items.
            self._renew(None)
            self._calibrator.calibrate(self._asked(batches), cold_item_budget, popularity)

    def calibrate_popularity(self, batches: tf.data.Dataset) -> None:
        """Chooses the weight of popularity alone, at the weight that the id view has.

        Args:
          batches: As for `calibrate`.
        """
        self._renew(None)
        self._calibrator.calibrate_popularity(self._asked(batches))

    def _asked(self, batches) -> list[Asked]:
        """Infers the calibration's examples."""
        asked, examples = [], 0
        for batch in batches:
            for _, history, target in groups_of_length(batch):
                # An empty history is answered by popularity, whatever is chosen here.
                has_history = tf.reduce_any(history > 0, axis=1, keepdims=True)
                target = tf.where(has_history, target, 0)
                asked.append(Asked(self._infer_batch(history), history, target))
            examples += len(batch[features.HISTORY])
            if examples >= CALIBRATION_EXAMPLES:
                break
        return asked


def groups_of_length(
    batch: Mapping[str, tf.Tensor],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Takes a batch apart into groups of histories of about one length.

    A model's price is that of the columns it is given, and few histories are as long as the
    longest of their batch.

    Args:
      batch: Of `data.evaluation_batches`.

    Yields:
      Places in the batch, int `[m]`; their histories, known items at the right and no column
      without any, int32 `[m, L]`; their targets, int32 `[m, T]`.
    """
    whole = batch[features.HISTORY]
    history, target = compact(whole, whole.shape[1]).numpy(), np.asarray(batch[features.TARGET])
    lengths = (history > 0).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    for begin in range(0, len(order), _GROUP):
        places = order[begin : begin + _GROUP]
        first = history.shape[1] - lengths[places].max()
        yield places, history[places, first:], target[places]


def popularity_ranks(
    counts: tf.Tensor, history: tf.Tensor, target: tf.Tensor, filter_seen: bool = True
) -> tf.Tensor:
    """Ranks targets by popularity in the training split, the baseline of every gate.

    Args:
      counts: int64 `[rows]`, training interactions of every row; rows are the order of items
        with equal counts.
      history: int32 `[n, L]`, 0 for padding.
      target: int32 `[n, T]`, 0 for padding, -1 for targets outside the catalogue.
      filter_seen: Whether items of the history are left out.

    Returns:
      int32 `[n, T]`, as from `RankingEvaluator.ranks`.
    """
    order = tf.argsort(counts[1:], direction="DESCENDING", stable=True) + 1
    place = tf.scatter_nd(order[:, tf.newaxis], tf.range(1, tf.size(order) + 1), tf.shape(counts))
    ranks = tf.gather(place, tf.maximum(target, 0))
    if filter_seen:
        seen = tf.sort(tf.gather(place, history), axis=1)
        # An item that stands twice in a history leaves one place of the ranking.
        again = tf.pad(seen[:, 1:] == seen[:, :-1], [[0, 0], [1, 0]])[:, : tf.shape(seen)[1]]
        seen = tf.where(again, 0, seen)

        def seen_before(target_places):
            before = (seen > 0) & (seen < target_places[:, tf.newaxis])
            return tf.math.count_nonzero(before, axis=1, dtype=tf.int32)

        counts_before = tf.map_fn(seen_before, tf.transpose(ranks), fn_output_signature=tf.int32)
        ranks = tf.where(ranks > 0, ranks - tf.transpose(counts_before), 0)
    return tf.where(target < 0, _NEVER_FOUND, ranks)
