"""The exported model: a SavedModel whose signatures hold everything from item ids to item ids."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.content_statistics import ModalityStatistics, content_statistics, to_json
from bivrec_tf.data import ItemLookup, parse_sequences
from bivrec_tf.evaluation import popularity_ranks, ranking_metrics
from bivrec_tf.metrics import RankingMetric
from bivrec_tf.models import BiVRec
from bivrec_tf.models.histories import compact
from bivrec_tf.retrieval import MultiInterestTopK
from bivrec_tf.version import __version__

DESCRIPTION_FILE = Path("assets.extra") / "bivrec.json"
"""Beside the SavedModel: version, configuration, item order fingerprint, validation metrics."""
CONTENT_STATISTICS_FILE = Path("assets.extra") / "content_statistics.json"
"""Beside the SavedModel: what the content of its items looks like, see `content_statistics`."""
DEFAULT_K = 20
NUM_REASONS = 3
GATED_METRICS = ("recall_at_20", "ndcg_at_20")
"""The metrics that the Evaluator compares with popularity and with the last blessed model."""

_STRINGS = tf.TensorSpec([None, None], tf.string)
_EXAMPLES = tf.TensorSpec([None], tf.string, name="examples")


class ServingModule(tf.Module):
    """What is exported: the towers' weights, the index, and functions over strings.

    It tracks variables and lookups, not Keras models, which do not save as part of a module.

    Args:
      model: A trained model.
      lookup: Maps strings to rows; the catalogue's own lookup without it.
      default_k: Results of a signature that takes no k.
    """

    SAVED_PARTS = ("saved_weights", "saved_catalogue", "saved_tables")
    """Attributes from which `bivrec_tf.saved_model` reads the model back."""

    def __init__(
        self,
        model: BiVRec,
        lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
        default_k: int = DEFAULT_K,
    ) -> None:
        super().__init__()
        catalogue = model.catalogue
        tables = model.item_tables()
        # Plain Python attributes of a module are tracked and saved where they are trackable; these
        # closures keep Keras objects out of that.
        index = model.build_index(default_k, tables)
        popularity = tf.constant(catalogue.counts, tf.float32)
        shares = tf.math.log((popularity + 0.5) / (tf.reduce_sum(popularity) + 0.5))
        popular = MultiInterestTopK(default_k).index(
            shares[:, tf.newaxis],
            available=tf.constant(~catalogue.retired),
            has_padding=True,
        )
        unit_tables = {view: tf.math.l2_normalize(table, 1) for view, table in tables.items()}
        self._get_model = lambda: model
        self._get_index = lambda: index
        self._get_popular = lambda: popular
        self._default_k = default_k
        self._lookup = lookup or ItemLookup(catalogue)
        self.saved_weights = model.named_variables()
        self.saved_tables = {view: index.variable(view) for view in tables}
        self.saved_catalogue = {
            "item_ids": tf.Variable(tf.constant(catalogue.item_ids), trainable=False),
            "counts": tf.Variable(catalogue.counts, trainable=False),
            "listed": tf.Variable(catalogue.listed, trainable=False),
            "retired": tf.Variable(catalogue.retired, trainable=False),
            "content_hashes": tf.Variable(catalogue.content_hashes, trainable=False),
        }
        self._unit_tables = {
            view: tf.Variable(table, trainable=False) for view, table in unit_tables.items()
        }
        # What has a name above has it alone: a checkpoint keeps a variable under one name.
        named = {id(variable) for variable in self.saved_tables.values()}
        state = [*index.state(), *popular.state()]
        self._tracked = [variable for variable in state if id(variable) not in named]

    def signatures(self) -> dict[str, tf.types.experimental.GenericFunction]:
        """Returns the functions to export, by signature name."""
        no_exclusions = tf.constant([[""]])
        default_k = tf.constant(self._default_k)
        own_weight = tf.constant(-1.0)
        filter_seen_by_default = tf.constant(True)
        # Created here: a traced function may not create the metrics' variables.
        metrics = ranking_metrics()

        @tf.function(input_signature=[_STRINGS, _STRINGS])
        def serving_default(history, exclude=no_exclusions):
            answer = self._recommend(
                history, exclude, default_k, own_weight, filter_seen_by_default
            )
            answer.pop(features.BECAUSE)
            return answer

        scalar_specs = [tf.TensorSpec([], kind) for kind in (tf.int32, tf.float32, tf.bool)]

        @tf.function(input_signature=[_STRINGS, _STRINGS, *scalar_specs])
        def recommend(
            history,
            exclude=no_exclusions,
            k=default_k,
            id_weight=own_weight,
            filter_seen=filter_seen_by_default,
        ):
            return self._recommend(history, exclude, k, id_weight, filter_seen)

        @tf.function(input_signature=[_STRINGS])
        def interests(history):
            return self._interests(history)

        @tf.function(input_signature=[_EXAMPLES])
        def examples(examples):
            history = parse_sequences(examples)[features.HISTORY].to_tensor("")
            answer = self._recommend(
                history, no_exclusions, default_k, own_weight, filter_seen_by_default
            )
            answer.pop(features.BECAUSE)
            return answer

        @tf.function(input_signature=[_EXAMPLES])
        def evaluate(examples):
            return self._evaluate(parse_sequences(examples), metrics)

        @tf.function(input_signature=[_EXAMPLES])
        def transform_features(examples):
            parsed = parse_sequences(examples)
            return {
                name: self._lookup(parsed[name].to_tensor(""))
                for name in (features.HISTORY, features.TARGET)
            }

        return {
            features.SERVING_DEFAULT: serving_default,
            features.RECOMMEND: recommend,
            features.INTERESTS: interests,
            features.EXAMPLES: examples,
            features.EVALUATE: evaluate,
            features.TRANSFORM_FEATURES: transform_features,
        }

    def _index_tables(self) -> dict[str, tf.Tensor]:
        index = self._get_index()
        return {view: index.table(view) for view in self._get_model().config.views}

    def _recommend(self, history, exclude, k, id_weight, filter_seen):
        checks = [
            tf.debugging.assert_positive(k, "k: expected at least 1"),
            tf.debugging.assert_less_equal(
                id_weight, 1.0, "id_weight: expected at most 1, or negative for the model's own"
            ),
        ]
        with tf.control_dependencies(checks):
            rows = self._lookup(history)
        index, model = self._get_index(), self._get_model()
        known = compact(rows, model.config.max_history)
        found = model.interests(known, self._index_tables())
        queries = {view: interests.vectors for view, interests in found.items()}
        count = tf.shape(rows)[0]
        # One row of exclusions is for everybody; the signature's default is one.
        excluded = self._lookup(exclude)
        excluded = tf.broadcast_to(excluded, [count, tf.shape(excluded)[1]])
        excluded = tf.concat([tf.where(filter_seen, rows, 0), excluded], axis=1)
        weight = tf.where(id_weight < 0, index.id_weight, id_weight)
        result = index.search(queries, excluded, k, weight)
        reasons = self._reasons(found, known, result)

        has_history = tf.reduce_any(rows > 0, axis=1)
        popular = self._get_popular().search(tf.ones([count, 1, 1]), excluded, k)
        one, two = has_history[:, tf.newaxis], has_history[:, tf.newaxis, tf.newaxis]
        result_rows = tf.where(one, result.rows, popular.rows)
        unknown = tf.math.count_nonzero((rows == 0) & (history != ""), axis=1, dtype=tf.int32)
        return {
            features.ITEM_IDS: tf.gather(self.saved_catalogue["item_ids"], result_rows),
            features.SCORES: tf.where(one, result.scores, popular.scores),
            features.INTEREST: tf.where(one & (result_rows > 0), result.interest, -1),
            features.VIEW_SCORES: tf.where(two, result.view_scores, 0.0),
            features.BECAUSE: tf.where(two, reasons, ""),
            features.UNKNOWN_ITEMS: unknown,
        }

    def _allocations(self, found, known) -> dict[str, tf.Tensor]:
        """Allocation of history items by view, `[n, K, L]`, 0 at padding."""
        valid = tf.cast(known > 0, tf.float32)[:, tf.newaxis]
        return {view: interests.allocation * valid for view, interests in found.items()}

    def _reasons(self, found, known, result):
        """The history items behind each result: allocated to its interest, and alike."""
        allocations = list(self._allocations(found, known).values())
        allocation = tf.add_n(allocations) / len(allocations)
        of_interest = tf.gather(allocation, result.interest, batch_dims=1)
        likeness = tf.add_n(
            [
                tf.matmul(tf.gather(table, result.rows), tf.gather(table, known), transpose_b=True)
                for table in self._unit_tables.values()
            ]
        ) / len(self._unit_tables)
        strength = of_interest * (1.0 + likeness)
        missing = tf.maximum(NUM_REASONS - tf.shape(known)[1], 0)
        strength = tf.pad(strength, [[0, 0], [0, 0], [0, missing]])
        known = tf.pad(known, [[0, 0], [0, missing]])
        best = tf.math.top_k(strength, k=NUM_REASONS)
        rows = tf.gather(known, best.indices, batch_dims=1)
        is_reason = (best.values > 0) & (result.rows > 0)[:, :, tf.newaxis]
        return tf.gather(self.saved_catalogue["item_ids"], tf.where(is_reason, rows, 0))

    def _interests(self, history):
        model = self._get_model()
        known = compact(self._lookup(history), model.config.max_history)
        found = model.interests(known, self._index_tables())
        answer = {features.HISTORY_ITEMS: tf.gather(self.saved_catalogue["item_ids"], known)}
        for view, allocation in self._allocations(found, known).items():
            answer[features.interests_name(view)] = found[view].vectors
            answer[features.allocation_name(view)] = allocation
        return answer

    def _evaluate(
        self, parsed: Mapping[str, tf.Tensor], metrics: list[RankingMetric]
    ) -> dict[str, tf.Tensor]:
        """Metrics of every example, float `[n, 1]`, of the model and over popularity."""
        rows = self._lookup(parsed[features.HISTORY].to_tensor(""))
        target_ids = parsed[features.TARGET].to_tensor("")
        target = self._lookup(target_ids)
        target = tf.where((target == 0) & (target_ids != ""), -1, target)
        model, index = self._get_model(), self._get_index()
        queries = {
            view: interests.vectors
            for view, interests in model.interests(rows, self._index_tables()).items()
        }
        ranks = index.ranks(queries, tf.maximum(target, 0), rows)
        popular = popularity_ranks(self.saved_catalogue["counts"], rows, tf.maximum(target, 0))
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


def export(
    model: BiVRec,
    directory: str | os.PathLike,
    lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
    metrics: Mapping[str, float] | None = None,
    default_k: int = DEFAULT_K,
    encoders: Mapping[str, Mapping[str, str | None]] | None = None,
    statistics: Mapping[str, ModalityStatistics] | None = None,
) -> ServingModule:
    """Writes a SavedModel that TensorFlow Serving loads as it is.

    Args:
      model: A trained model.
      directory: Where to; created. To be served it must be named by a version number.
      lookup: Maps item ids to rows in the graph; the catalogue's own lookup without it.
      metrics: Validation metrics, for the description beside the model.
      default_k: Results of a signature that takes no k.
      encoders: `encoder` and `fingerprint` of every modality, where they are known: what a later
        refresh or transfer holds its own features against.
      statistics: Of the content that the model was trained with; the catalogue's without it.

    Returns:
      The module that was saved.
    """
    module = ServingModule(model, lookup, default_k)
    tf.saved_model.save(module, os.fspath(directory), signatures=module.signatures())
    catalogue, encoders = model.catalogue, encoders or {}
    description = {
        "bivrec_tf_version": __version__,
        "model": model.config.model_dump(mode="json"),
        "items": {
            "fingerprint": catalogue.fingerprint,
            "trained": catalogue.num_trained,
            "cold": catalogue.num_items - catalogue.num_trained,
            "retired": int(catalogue.retired.sum()),
        },
        "modalities": {
            name: {"dimension": dimension, **encoders.get(name, {})}
            for name, dimension in catalogue.modalities.items()
        },
        "id_weight": float(model.id_weight.numpy()),
        "cold_offset": float(model.cold_offset.numpy()),
        "validation": dict(metrics or {}),
    }
    if statistics is None:
        statistics = content_statistics(catalogue.items(), catalogue.modalities)
    for place, text in (
        (DESCRIPTION_FILE, json.dumps(description, indent=2, sort_keys=True)),
        (CONTENT_STATISTICS_FILE, to_json(statistics)),
    ):
        path = os.path.join(os.fspath(directory), place)
        tf.io.gfile.makedirs(os.path.dirname(path))
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(text)
    return module
