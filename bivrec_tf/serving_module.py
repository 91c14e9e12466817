"""What is exported: functions from item ids to item ids, and the variables that they need."""

from collections.abc import Callable

import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.availability import UnavailableItems
from bivrec_tf.config import ExportConfig
from bivrec_tf.data import ItemLookup, parse_sequences
from bivrec_tf.evaluation import popularity_ranks
from bivrec_tf.graphs import graph_function
from bivrec_tf.metrics import RankingMetric
from bivrec_tf.models import BiVRec
from bivrec_tf.models.histories import compact
from bivrec_tf.retrieval import MultiInterestTopK, SearchResult
from bivrec_tf.retrieval.diversity import POOL, diversified
from bivrec_tf.retrieval.nearest import nearest

NUM_REASONS = 3
GATED_METRICS = ("recall_at_20", "ndcg_at_20")
"""The metrics that the Evaluator compares with popularity and with the last blessed model."""

ID, MM = features.VIEWS
ID_WEIGHTS = "embeddings"
"""The weights that are the rows of the trained items in the id view's table."""


class ServingModule(tf.Module):
    """The towers' weights, the index, and functions over strings; `signatures` exports them.

    It tracks variables and lookups, not Keras models, which do not save as part of a module.

    Args:
      model: A trained model.
      lookup: Maps strings to rows; the catalogue's own lookup without it.
      options: How the model is exported.
    """

    SAVED_PARTS = ("saved_weights", "saved_catalogue", "saved_tables")
    """Attributes from which `bivrec_tf.saved_model` reads the model back."""

    def __init__(
        self,
        model: BiVRec,
        lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
        options: ExportConfig | None = None,
    ) -> None:
        super().__init__()
        catalogue = model.catalogue
        self.options = options or ExportConfig()
        # Plain Python attributes of a module are tracked and saved where they are trackable; these
        # closures keep Keras objects out of that.
        index = model.build_index(self.options.default_k, dtype=self.options.table_dtype)
        popularity = tf.constant(catalogue.counts, tf.float32)
        shares = tf.math.log((popularity + 0.5) / (tf.reduce_sum(popularity) + 0.5))
        popular = MultiInterestTopK(self.options.default_k).index(
            shares[:, tf.newaxis],
            available=tf.constant(~catalogue.retired),
            has_padding=True,
        )
        self._get_model = lambda: model
        self._get_index = lambda: index
        self._get_popular = lambda: popular
        self._lookup = lookup or ItemLookup(catalogue)
        # The id view's own weights are the first rows of its table: once is enough.
        self.saved_weights = {
            name: variable
            for name, variable in model.named_variables().items()
            if name != ID_WEIGHTS
        }
        self.saved_tables = {
            name: variable
            for view in model.config.views
            for name, variable in index.table(view).variables_by_name(view).items()
        }
        self.saved_catalogue = {
            "item_ids": tf.Variable(tf.constant(catalogue.item_ids), trainable=False),
            "counts": tf.Variable(catalogue.counts, trainable=False),
            "listed": tf.Variable(catalogue.listed, trainable=False),
            "retired": tf.Variable(catalogue.retired, trainable=False),
            "content_hashes": tf.Variable(catalogue.content_hashes, trainable=False),
        }
        self._unavailable = UnavailableItems(self.saved_catalogue["item_ids"])
        # Traced once, and not for every signature.
        rows, scalar = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)
        some, flag = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.bool)
        infer = graph_function(
            lambda known: model.interests(known, self._tables()), input_signature=[rows]
        )
        number = tf.TensorSpec([], tf.int32)
        search = graph_function(
            self._recommend_rows, input_signature=[rows, rows, some, number, scalar, scalar, flag]
        )
        self._infer = lambda known: infer(known)
        self._search = lambda *arguments: search(*arguments)
        # What has a name above has it alone: a checkpoint keeps a variable under one name.
        named = {id(variable) for variable in self.saved_tables.values()}
        state = [*index.state(), *popular.state()]
        self._tracked = [variable for variable in state if id(variable) not in named]

    def recommend(
        self,
        history: tf.Tensor,
        exclude: tf.Tensor | None = None,
        unavailable: tf.Tensor | None = None,
        k: tf.Tensor | int | None = None,
        id_weight: tf.Tensor | float = -1.0,
        diversity: tf.Tensor | float = 0.0,
        filter_seen: tf.Tensor | bool = True,
    ) -> dict[str, tf.Tensor]:
        """Recommends; arguments and outputs are those of the signature, see `features`.

        Raises:
          InvalidArgumentError: `k`, `id_weight` or `diversity` is out of its range.
        """
        k = tf.cast(self.options.default_k if k is None else k, tf.int32)
        id_weight, diversity = tf.cast(id_weight, tf.float32), tf.cast(diversity, tf.float32)
        checks = [
            *self._checks_of_k(k),
            tf.debugging.assert_less_equal(
                id_weight, 1.0, "id_weight: expected at most 1, or negative for the model's own"
            ),
            tf.debugging.Assert(
                (diversity >= 0.0) & (diversity <= 1.0),
                ["diversity: expected a number from 0 to 1, found", diversity],
            ),
        ]
        with tf.control_dependencies(checks):
            rows = self._lookup(history)
        nobody = tf.zeros([tf.shape(rows)[0], 0], tf.int32)
        answer = self._search(
            rows,
            nobody if exclude is None else self._lookup(exclude),
            tf.zeros([0], tf.int32) if unavailable is None else self._lookup(unavailable),
            k,
            id_weight,
            diversity,
            tf.cast(filter_seen, tf.bool),
        )
        unknown = tf.math.count_nonzero((rows == 0) & (history != ""), axis=1, dtype=tf.int32)
        return {**answer, features.UNKNOWN_ITEMS: unknown}

    def _recommend_rows(self, rows, exclude, unavailable, k, id_weight, diversity, filter_seen):
        """As `recommend`, for rows in the place of ids."""
        index, model = self._get_index(), self._get_model()
        k = tf.minimum(k, model.num_rows)
        known = compact(rows, model.config.max_history)
        found = self._infer(known)
        queries = {view: interests.vectors for view, interests in found.items()}
        # One row of exclusions is for everybody; the signature's default is one.
        exclude = tf.broadcast_to(exclude, [tf.shape(rows)[0], tf.shape(exclude)[1]])
        excluded = tf.concat([tf.where(filter_seen, rows, 0), exclude], axis=1)
        closed = self._closed(unavailable)
        weight = tf.where(id_weight < 0, index.id_weight, id_weight)
        pool = tf.where(diversity > 0.0, tf.minimum(POOL * k, model.num_rows), k)
        result = index.search(queries, excluded, pool, weight, closed)
        result = SearchResult(
            *tf.cond(
                diversity > 0.0,
                lambda: self._diversified(result, k, diversity),
                lambda: tuple(result),
            )
        )
        reasons, _ = self._reasons(found, known, result.rows, result.interest)

        has_history = tf.reduce_any(rows > 0, axis=1)
        popular_rows, popular_scores = tf.cond(
            tf.reduce_all(has_history),
            lambda: (result.rows, result.scores),
            lambda: self._most_popular(excluded, k, closed),
        )
        one, two = has_history[:, tf.newaxis], has_history[:, tf.newaxis, tf.newaxis]
        result_rows = tf.where(one, result.rows, popular_rows)
        return {
            features.ITEM_IDS: self._ids(result_rows),
            features.SCORES: tf.where(one, result.scores, popular_scores),
            features.INTEREST: tf.where(one & (result_rows > 0), result.interest, -1),
            features.VIEW_SCORES: tf.where(two, result.view_scores, 0.0),
            features.BECAUSE: tf.where(two, reasons, ""),
        }

    def because(self, history: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Says which items of a history, string `[n, L]`, are behind items, string `[n, k]`."""
        model, index = self._get_model(), self._get_index()
        known = compact(self._lookup(history), model.config.max_history)
        found = self._infer(known)
        queries = {view: interests.vectors for view, interests in found.items()}
        rows = self._lookup(item_ids)
        interest, _ = index.explain(queries, rows)
        reasons, weights = self._reasons(found, known, rows, interest)
        return {features.BECAUSE: reasons, features.BECAUSE_WEIGHTS: weights}

    def similar_items(self, item_id: tf.Tensor, k: tf.Tensor | int) -> dict[str, tf.Tensor]:
        """Finds the items that are most alike to items, string `[n]`, in each view by itself.

        Raises:
          InvalidArgumentError: `k` is out of its range.
        """
        with tf.control_dependencies(self._checks_of_k(k)):
            rows = self._lookup(item_id)
        model = self._get_model()
        k = tf.minimum(k, model.num_rows)
        closed = self._closed() | self.saved_catalogue["retired"].value()
        unknown = tf.cast((rows == 0) & (item_id != ""), tf.int32)
        answer = {features.UNKNOWN_ITEMS: unknown}
        for view in model.config.views:
            is_cold = tf.range(model.num_rows) > model.catalogue.num_trained
            without_vector = is_cold if view == ID else tf.zeros_like(closed)
            vectors = self._get_index().table(view).read()
            scores, found = nearest(vectors, rows, k, closed | without_vector)
            answer[features.similar_items_name(view)] = self._ids(found)
            answer[features.similar_scores_name(view)] = tf.where(found > 0, scores, 0.0)
        return answer

    def interests(self, history: tf.Tensor) -> dict[str, tf.Tensor]:
        """Infers interest vectors and allocations of histories, string `[n, L]`."""
        model = self._get_model()
        known = compact(self._lookup(history), model.config.max_history)
        found = self._infer(known)
        answer = {features.HISTORY_ITEMS: self._ids(known)}
        for view, allocation in _allocations(found, known).items():
            answer[features.interests_name(view)] = found[view].vectors
            answer[features.allocation_name(view)] = allocation
        return answer

    def evaluate(self, examples: tf.Tensor, metrics: list[RankingMetric]) -> dict[str, tf.Tensor]:
        """Metrics of every serialised example, float `[n, 1]`, of the model and over popularity."""
        parsed = parse_sequences(examples)
        rows = self._lookup(parsed[features.HISTORY].to_tensor(""))
        target_ids = parsed[features.TARGET].to_tensor("")
        target = self._lookup(target_ids)
        target = tf.where((target == 0) & (target_ids != ""), -1, target)
        index = self._get_index()
        queries = {view: interests.vectors for view, interests in self._infer(rows).items()}
        ranks = index.ranks(queries, tf.maximum(target, 0), rows)
        counts = self.saved_catalogue["counts"].value()
        popular = popularity_ranks(counts, rows, tf.maximum(target, 0))
        # Of an empty history the signature above would recommend what is popular.
        has_history = tf.reduce_any(rows > 0, axis=1, keepdims=True)
        ranks = tf.where(has_history, ranks, popular)
        ranks = tf.where(target < 0, ranks.dtype.max, ranks)
        popular = tf.where(target < 0, popular.dtype.max, popular)
        values = {metric.name: metric.per_example(ranks) for metric in metrics}
        for metric in metrics:
            if metric.name in GATED_METRICS:
                gain = values[metric.name] - metric.per_example(popular)
                values[f"{metric.name}_{features.POPULARITY_GAIN}"] = gain
        return {name: value[:, tf.newaxis] for name, value in values.items()}

    def model_inputs(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the rows of history and target of serialised examples, int32 `[n, ...]`."""
        parsed = parse_sequences(examples)
        return {
            name: self._lookup(parsed[name].to_tensor(""))
            for name in (features.HISTORY, features.TARGET)
        }

    def _tables(self):
        index = self._get_index()
        return {view: index.table(view) for view in self._get_model().config.views}

    def _ids(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.saved_catalogue["item_ids"].value(), rows)

    def _closed(self, unavailable: tf.Tensor | None = None) -> tf.Tensor:
        """What is no result for anybody, bool `[rows]`: padding, and what is switched off."""
        rows = self._unavailable.rows()
        if unavailable is not None:
            rows = tf.concat([rows, unavailable], axis=0)
        where = rows[:, tf.newaxis]
        return tf.scatter_nd(where, tf.ones_like(rows), [self._get_model().num_rows]) > 0

    def _checks_of_k(self, k: tf.Tensor | int) -> list[tf.Operation | None]:
        most = self.options.max_k
        return [
            tf.debugging.assert_positive(k, "k: expected at least 1"),
            tf.debugging.assert_less_equal(k, most, f"k: expected at most {most}"),
        ]

    def _diversified(self, result: SearchResult, k, diversity) -> tuple[tf.Tensor, ...]:
        vectors = [table.gather(result.rows) for table in self._tables().values()]
        chosen = diversified(result.scores, result.interest, vectors, k, diversity)
        return tuple(tf.gather(part, chosen, batch_dims=1) for part in result)

    def _most_popular(self, excluded, k, closed) -> tuple[tf.Tensor, tf.Tensor]:
        queries = tf.ones([tf.shape(excluded)[0], 1, 1])
        popular = self._get_popular().search(queries, excluded, k, closed=closed)
        return popular.rows, popular.scores

    def _reasons(self, found, known, rows, interest) -> tuple[tf.Tensor, tf.Tensor]:
        """The history items behind each result: allocated to its interest, and alike.

        Returns:
          Ids, string `[n, m, NUM_REASONS]`, and their shares, float32.
        """
        allocations = list(_allocations(found, known).values())
        allocation = tf.add_n(allocations) / len(allocations)
        of_interest = tf.gather(allocation, tf.maximum(interest, 0), batch_dims=1)
        likenesses = []
        for table in self._tables().values():
            results, items = (
                tf.math.l2_normalize(table.gather(which), axis=2) for which in (rows, known)
            )
            likenesses.append(tf.matmul(results, items, transpose_b=True))
        strength = of_interest * (1.0 + tf.add_n(likenesses) / len(likenesses))
        total = tf.reduce_sum(strength, axis=2, keepdims=True)
        strength = tf.math.divide_no_nan(strength, total)
        missing = tf.maximum(NUM_REASONS - tf.shape(known)[1], 0)
        strength = tf.pad(strength, [[0, 0], [0, 0], [0, missing]])
        known = tf.pad(known, [[0, 0], [0, missing]])
        best = tf.math.top_k(strength, k=NUM_REASONS)
        behind = tf.gather(known, best.indices, batch_dims=1)
        is_reason = (best.values > 0) & (rows > 0)[:, :, tf.newaxis]
        ids = self._ids(tf.where(is_reason, behind, 0))
        return ids, tf.where(is_reason, best.values, 0.0)


def _allocations(found, known) -> dict[str, tf.Tensor]:
    """Allocation of history items by view, `[n, K, L]`, 0 at padding."""
    valid = tf.cast(known > 0, tf.float32)[:, tf.newaxis]
    return {view: interests.allocation * valid for view, interests in found.items()}
