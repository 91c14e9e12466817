"""Chooses on validation what stands between views' scores and the ranking."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bivrec_tf.graphs import graph_function
from bivrec_tf.metrics import NDCG, RankingMetric, Recall
from bivrec_tf.models import SequentialRecommender
from bivrec_tf.retrieval import MultiInterestTopK

logger = logging.getLogger(__name__)

COLD_OFFSETS = (-12.0, 6.0)
"""Range in which the offset of cold items is sought."""
ID_WEIGHTS = tuple(step / 10 for step in range(11))
"""Weights of the id view among which one is chosen."""
POPULARITY_WEIGHTS = (0.0, -0.15, 0.15, -0.3, 0.3, -0.45, 0.45, -0.6)
"""Weights of popularity among which one is chosen, of equally good ones the first."""

# How far the weight of the id view may move once that of popularity is chosen.
_SECOND_LOOK = 0.25
_OFFSET_PRECISION = 0.05
# Into how many the range of the offset is divided at once.
_SECTIONS = 8
# Share of the items that stand in for cold ones where there are fewer.
_STAND_INS = 0.1


class Asked(NamedTuple):
    """A group of validation examples, inferred.

    Attributes:
      queries: By view, float `[n, K, D]`.
      history: int32 `[n, L]`, 0 for padding.
      target: int32 `[n, T]`, 0 for what does not count, -1 for targets outside the catalogue.
    """

    queries: Mapping[str, tf.Tensor]
    history: tf.Tensor
    target: tf.Tensor


class Calibrator:
    """Gives a model the weights of the id view and of popularity, and the offset of cold items.

    Values of a grid share their products with the catalogue, which cost far more than what a value
    makes of them. Where validation finds nothing under any value, the model keeps its own, and a
    warning says so.

    Args:
      model: What is calibrated.
      index: The model's index, of its present weights whenever a method is called.
      filter_seen: Whether items of the history are left out of the ranking.

    Reference: `docs/model.md`, section 5.
    """

    def __init__(
        self, model: SequentialRecommender, index: MultiInterestTopK, filter_seen: bool
    ) -> None:
        self._model = model
        self._index = index
        self._filter_seen = filter_seen
        self._ranks: tf.types.experimental.PolymorphicFunction | None = None

    def calibrate(self, asked: Sequence[Asked], cold_item_budget: float, popularity: bool) -> None:
        """Chooses all that the model has; see `RankingEvaluator.calibrate`."""
        model = self._model
        self._hide_cold_items()
        if model.has_both_views:
            self._choose(model.id_weight, ID_WEIGHTS, asked)
        if popularity:
            self._choose(model.popularity_weight, POPULARITY_WEIGHTS, asked)
        if model.has_both_views and float(model.popularity_weight.numpy()):
            first = float(model.id_weight.numpy())
            near = [weight for weight in ID_WEIGHTS if abs(weight - first) < _SECOND_LOOK]
            self._choose(model.id_weight, near, asked)
        if "mm" in model.config.views:
            self._choose_cold_offset(asked, cold_item_budget)
        self._restore()

    def calibrate_popularity(self, asked: Sequence[Asked]) -> None:
        """Chooses the weight of popularity alone."""
        self._hide_cold_items()
        self._choose(self._model.popularity_weight, POPULARITY_WEIGHTS, asked)
        self._restore()

    def _hide_cold_items(self) -> None:
        model = self._model
        self._index.set_items(available=model.is_warm & tf.constant(~model.catalogue.retired))

    def _restore(self) -> None:
        """Makes the index what the model is, again."""
        model = self._model
        self._index.set_items(
            warm=model.is_warm,
            available=tf.constant(~model.catalogue.retired),
            offsets=model.item_offsets(),
        )

    def _choose(self, variable: tf.Variable, grid: Sequence[float], asked) -> None:
        """Gives a variable of the model the best value of a grid; of equal ones the first."""
        model, before, choices = self._model, float(variable.numpy()), []
        for value in grid:
            variable.assign(value)
            choices.append((float(model.id_weight.numpy()), model.item_offsets()))
        quality = self._measure((NDCG(10),), asked, choices)[:, 0]
        if quality.any():
            variable.assign(grid[int(np.argmax(quality))])
            return
        variable.assign(before)
        logger.warning(
            "the %s stays %.2f: no trained item was found in validation under any value, so "
            "nothing tells which is better",
            variable.name.removesuffix(":0").replace("_", " "),
            before,
        )

    def _measure(
        self,
        metrics: Sequence[RankingMetric],
        asked: Sequence[Asked],
        choices: Sequence[tuple[float, tf.Tensor]],
        leave_out: tf.Tensor | None = None,
    ) -> np.ndarray:
        """Values of metrics `[C, metrics]` at choices of an id view's weight and items' offsets.

        Targets to leave out, bool `[rows]`, do not count.
        """
        id_weights = tf.constant([id_weight for id_weight, _ in choices])
        offsets = tf.stack([offsets for _, offsets in choices])
        sums, examples = np.zeros([len(choices), len(metrics)]), 0
        for queries, history, target in asked:
            if leave_out is not None:
                target = tf.where(tf.gather(leave_out, tf.maximum(target, 0)), 0, target)
            counted = np.asarray(target != 0).any(axis=1)
            ranks = self._rank(queries, history, target, id_weights, offsets).numpy()[:, counted]
            flat = ranks.reshape(-1, ranks.shape[2])
            for column, metric in enumerate(metrics):
                values = metric.per_example(flat).numpy().reshape(ranks.shape[:2])
                sums[:, column] += values.sum(axis=1)
            examples += counted.sum()
        return sums / max(examples, 1)

    def _rank(self, queries, history, target, id_weights, offsets) -> tf.Tensor:
        if self._ranks is None:
            # One trace for all; interests and widths are known, since products of an unknown
            # number of interests are slow.
            rows, of_items = tf.TensorSpec([None, None], tf.int32), [None, self._model.num_rows]
            of_views = {v: tf.TensorSpec([None, *q.shape[1:]], q.dtype) for v, q in queries.items()}
            of_choices = tf.TensorSpec([None]), tf.TensorSpec(of_items)
            self._ranks = graph_function(
                self._ranks_of_choices, input_signature=[of_views, rows, rows, *of_choices]
            )
        return self._ranks(queries, history, target, id_weights, offsets)

    def _ranks_of_choices(self, queries, history, target, id_weights, offsets):
        seen = history if self._filter_seen else history[:, :0]
        ranks = self._index.ranks_of_choices(
            queries, tf.maximum(target, 0), id_weights, offsets, seen
        )
        return tf.where(target < 0, tf.int32.max, ranks)

    def _choose_cold_offset(self, asked, budget: float) -> None:
        model = self._model
        is_cold = self._cold_items()
        warm = (tf.range(model.num_rows) > 0) & ~is_cold
        available = tf.constant(~model.catalogue.retired)
        id_weight, of_warm = float(model.id_weight.numpy()), model.item_offsets()

        def of_warm_targets(cold_offsets: Sequence[float]) -> np.ndarray:
            choices = [(id_weight, tf.where(is_cold, offset, of_warm)) for offset in cold_offsets]
            return self._measure((Recall(20), NDCG(20)), asked, choices, leave_out=is_cold)

        self._index.set_items(warm=warm, available=available & ~is_cold)
        (without_cold,) = of_warm_targets([0.0])
        self._index.set_items(available=available)
        low, high = COLD_OFFSETS
        if not without_cold.all():
            logger.warning(
                "cold items keep the offset %.1f: no trained item was found in validation, so "
                "nothing tells what they would cost",
                float(model.cold_offset.numpy()),
            )
            low = high = float(model.cold_offset.numpy())
        while high - low > _OFFSET_PRECISION:
            between = np.linspace(low, high, _SECTIONS + 1)[1:-1].tolist()
            for offset, values in zip(between, of_warm_targets(between), strict=True):
                if (values < (1 - budget) * without_cold).any():
                    high = offset
                    break
                low = offset
        model.cold_offset.assign(low)

    def _cold_items(self) -> tf.Tensor:
        """Items to calibrate with, bool `[rows]`: the cold ones, or warm ones in their place."""
        catalogue = self._model.catalogue
        cold = (np.arange(len(catalogue.item_ids)) > catalogue.num_trained) & ~catalogue.retired
        missing = int(_STAND_INS * catalogue.num_items) - int(cold.sum())
        if missing > 0:
            warm = np.arange(1, catalogue.num_trained + 1)
            cold[np.random.default_rng(0).choice(warm, missing, replace=False)] = True
        return tf.constant(cold)
