"""What every model here shares: item vectors, views, two losses, calibration and the index."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import LossConfig, ModelConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.features import VIEWS
from bivrec_tf.graphs import untranslated
from bivrec_tf.layers import ItemEmbedding
from bivrec_tf.losses import AllocationBalance
from bivrec_tf.models.diagnostics import in_use, mean_cosine
from bivrec_tf.models.first_vectors import blended
from bivrec_tf.models.histories import compact, draw_positions, wanted_positions
from bivrec_tf.models.multimodal_items import MultimodalItems
from bivrec_tf.models.replicas import share_of_replica
from bivrec_tf.models.task_loss import FUSION, TaskLoss
from bivrec_tf.models.view_tower import Interests
from bivrec_tf.retrieval import MultiInterestTopK
from bivrec_tf.retrieval.item_table import Table, TableDtype, vectors_of

ID, MM = VIEWS
SEQUENCE = "sequence"
"""int32 `[batch, length]`, at most `max_history + 1`: rows of windows, padding on the left."""
IS_TARGET = "is_target"
"""bool `[batch, length]`: which of them are to be predicted."""
USER = "user"
"""int64 `[batch]`: equal for windows of one user."""


class SequentialRecommender(tfrs.Model):
    """A model that scores the catalogue by interests of a history, in one view or two.

    `fit`, `RankingEvaluator` and the export ask for no more than this class. A model says with
    `make_tower` how a view becomes interests.

    Args:
      config: The architecture.
      catalogue: The items and their content; needs at least one modality for the `mm` view.
      loss: Weights of the objective.
      positions_per_sequence: Positions drawn from a sequence in a step; none for all of them.
      **kwargs: Passed to the base class.

    Inputs of training (`fit`): a dictionary of `sequence`, `is_target` and `user`, see this
      module's constants. Every target that has an item before it is predicted from all of them.

    Raises:
      ConfigError: The `mm` view is asked for and the catalogue has no content.
    """

    def __init__(
        self,
        config: ModelConfig,
        catalogue: ItemCatalogue,
        loss: LossConfig | None = None,
        positions_per_sequence: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if MM in config.views and not catalogue.modalities:
            raise ConfigError(
                "model.views asks for the multimodal view, but no item has content features. "
                "Configure a modality, or train the id view alone with `views: [id]`."
            )
        self.config = config
        self.catalogue = catalogue
        self.loss_config = loss or LossConfig()
        self.positions_per_sequence = positions_per_sequence
        self._towers: dict[str, tf_keras.layers.Layer] = {
            view: self.make_tower(view, name=f"{view}_tower") for view in config.views
        }
        if ID in config.views:
            self._item_embedding = ItemEmbedding(
                catalogue.num_trained, config.dimension, name="item_embedding"
            )
        if MM in config.views:
            self.multimodal_items = MultimodalItems(catalogue, config)
            # Keras stores the weights of layers that are its model's own attributes.
            self._content_projection = self.multimodal_items.projection
        # Whether the weights are another model's: training does not start them anew.
        self.weights_are_given = False
        # float `[num_items, any]`: where another model puts items, see `transfer.warm_start`.
        self.known_of_content: np.ndarray | None = None
        counts = catalogue.counts[1 : catalogue.num_trained + 1]
        self.task_loss = TaskLoss(self.loss_config, config.readout, counts)
        # Chosen on validation at the end of training, and stored with the model.
        self.id_weight = tf.Variable(0.5, trainable=False, name="id_weight")
        # Times the logarithm of a trained item's interactions, added to its scores.
        self.popularity_weight = tf.Variable(0.0, trainable=False, name="popularity_weight")
        # Until then cold items stand back: the softmax never weighed them against the others.
        self.cold_offset = tf.Variable(-3.0, trainable=False, name="cold_offset")
        self._balance = AllocationBalance()
        self._task_weights = self._weights_of_tasks()
        names = ["loss", *self.build_cross_view()]
        if FUSION in self._task_weights:
            names.append(f"{FUSION}_loss")
        for view in config.views:
            names += [f"{view}_loss", f"{view}_interests_in_use", f"{view}_interest_cosine"]
        self._trackers = {name: tf_keras.metrics.Mean(name=name) for name in names}

    def _weights_of_tasks(self) -> dict[str, float]:
        """Returns the weight of every view's task, and of their common one where there is one."""
        weights: dict[str, float] = dict.fromkeys(self.config.views, 1.0)
        if self.has_both_views:
            weights[MM] = self.loss_config.mm_weight
            if self.loss_config.fusion_weight:
                weights[FUSION] = self.loss_config.fusion_weight
        return weights

    def make_tower(self, view: str, name: str) -> tf_keras.layers.Layer:
        """Returns the layer that makes `Interests` of a view's item vectors; see `ViewTower`."""
        raise NotImplementedError

    def build_cross_view(self) -> list[str]:
        """Creates what `cross_view_loss` needs; returns the names of what it tracks."""
        return []

    def cross_view_loss(self, found: Mapping[str, Interests], users: tf.Tensor) -> tf.Tensor:
        """Returns what ties two views' interests in training, a float32 scalar.

        Args:
          found: Interests of every view; the last position stands for the window.
          users: int64 `[batch]`.
        """
        return tf.constant(0.0)

    @property
    def has_both_views(self) -> bool:
        """Whether the cross-view losses apply."""
        return len(self.config.views) == 2

    def prepare_content(self) -> None:
        """Reads all items' content anew; whoever changes its statistics calls this."""
        if MM in self.config.views:
            self.multimodal_items.prepare()

    def item_table(self, view: str, rows: int, training: bool = False) -> tf.Tensor:
        """Returns the vectors of a view's first rows, padding (zero) first: `[rows, D]`.

        Args:
          view: `id` or `mm`.
          rows: `num_trained + 1`, which leaves out cold items, or `num_rows`. Cold items are zero
            in the id view.
          training: Whether modalities may be dropped.
        """
        if view == ID:
            table = self._item_embedding.table()
            return tf.pad(table, [[0, rows - tf.shape(table)[0]], [0, 0]])
        return self.multimodal_items.table(rows, training)

    def start_from(self, vectors: np.ndarray, content_prior: float = 0.0) -> None:
        """Gives trained items first vectors, before training.

        The multimodal view starts as what content says of these vectors and of
        `known_of_content`; the id view from them and from that, see `first_vectors`.

        Args:
          vectors: float `[num_trained, D]`.
          content_prior: Interactions that content counts as, in the id view.
        """
        if self.weights_are_given:
            return
        self.build_variables()
        if MM in self.config.views:
            said = self.multimodal_items.start_from(vectors, self.known_of_content)
            counts = self.catalogue.counts[1 : len(vectors) + 1]
            vectors = blended(vectors, said, counts, content_prior)
        if ID in self.config.views:
            self._item_embedding.start_from(vectors)

    def build_variables(self) -> None:
        """Creates every variable, so that weights can be restored into them."""
        # As a replica: only there do metrics that are kept for each device take values.
        with self.distribute_strategy.scope():
            self.distribute_strategy.run(self._build)
        self.reset_metrics()

    def _build(self) -> None:
        rows = tf.zeros([1, self.config.max_history + 1], tf.int32)
        inputs = {SEQUENCE: rows, IS_TARGET: rows > 0, USER: tf.zeros([1], tf.int64)}
        self.compute_loss(inputs, training=False)

    def named_variables(self) -> dict[str, tf.Variable]:
        """Returns all that makes the model what it is, by name: weights, statistics, calibration.

        Names are the same for every model of one architecture.

        Raises:
          ValueError: Two variables have one name.
        """
        diagnostics = {id(v) for metric in self.metrics for v in metric.variables}
        kept = [variable for variable in self.variables if id(variable) not in diagnostics]
        named = {variable.name.removesuffix(":0"): variable for variable in kept}
        if len(named) < len(kept):
            raise ValueError("two variables have one name: one of them would not be stored")
        return named

    def view_interests(
        self, view: str, tables: Mapping[str, Table], rows, positions, training=False
    ) -> Interests:
        """Runs one tower over histories `rows`, int `[n, L]`, with item vectors of all views.

        Interests are those at `positions`, int `[n, m]`. The multimodal view reads of a history's
        items what the id view knows, too; `docs/model.md`, section 0.
        """
        of_items = vectors_of(tables[view], rows)
        reads_ids = self.has_both_views and self.config.multimodal_history == "content_and_id"
        if view == MM and reads_ids:
            # No gradient: id vectors are not for the histories of the other view to teach.
            of_items += tf.stop_gradient(tf.cast(vectors_of(tables[ID], rows), of_items.dtype))
        return self._towers[view](of_items, rows > 0, positions=positions, training=training)

    def interests(
        self, rows: tf.Tensor, tables: Mapping[str, Table] | None = None
    ) -> dict[str, Interests]:
        """Infers the interests of histories.

        Args:
          rows: int32 `[n, L]`, any L, oldest first; 0 for padding and unknown items, anywhere.
          tables: Item tables of both views, where the caller has them already.

        Returns:
          `Interests` of every view, with vectors divided by the score temperature and the
          allocation for the compacted history, see `histories.compact`.
        """
        rows = compact(rows, self.config.max_history)
        last = tf.fill([tf.shape(rows)[0], 1], tf.shape(rows)[1] - 1)
        found: dict[str, Interests] = {}
        if tables is None:
            # A cold item has no id row, but is no padding: its zero vector holds its place.
            tables = self._tables(self.num_rows)
        for view in self.config.views:
            result = self.view_interests(view, tables, rows, last)
            vectors = tf.cast(result.vectors[:, 0], tf.float32) / self.config.score_temperature
            found[view] = result._replace(vectors=vectors)
        return found

    @property
    def num_rows(self) -> int:
        """Rows of every table: padding, trained items, cold items."""
        return len(self.catalogue.item_ids)

    def item_tables(self) -> dict[str, tf.Tensor]:
        """Returns the item vectors of every view, float32 `[num_rows, D]`."""
        tables = self._tables(self.num_rows)
        return {view: tf.cast(table, tf.float32) for view, table in tables.items()}

    def _tables(self, rows: int, training: bool = False) -> dict[str, tf.Tensor]:
        return {view: self.item_table(view, rows, training) for view in self.config.views}

    @property
    def is_warm(self) -> tf.Tensor:
        """Which rows training knew, bool `[num_rows]`; padding counts as one of them."""
        return tf.range(self.num_rows) <= self.catalogue.num_trained

    def item_offsets(self, cold_offset: float | None = None) -> tf.Tensor:
        """Returns what is added to the scores of every item, float32 `[num_rows]`.

        A trained item of `n` interactions has `popularity_weight * log(n)`, a cold one
        `cold_offset`, the model's own where the caller brings none; `docs/model.md`, section 5.
        """
        offset = self.cold_offset if cold_offset is None else tf.constant(cold_offset)
        interactions = np.log(np.maximum(self.catalogue.counts, 1)).astype(np.float32)
        return tf.where(self.is_warm, self.popularity_weight * interactions, offset)

    def build_index(
        self,
        k: int = 20,
        tables: Mapping[str, tf.Tensor] | None = None,
        dtype: TableDtype = "float32",
    ) -> MultiInterestTopK:
        """Builds the exact index over the present weights; row 0 is never a result.

        Args:
          k: Default number of results.
          tables: Item tables, where the caller has them already.
          dtype: What the index keeps them in.
        """
        return MultiInterestTopK(k=k).index(
            dict(tables or self.item_tables()),
            warm=self.is_warm,
            available=tf.constant(~self.catalogue.retired),
            offsets=self.item_offsets(),
            id_weight=float(self.id_weight.numpy()),
            has_padding=True,
            dtype=dtype,
        )

    def call(self, rows):
        """Returns interest vectors `[n, K, D]` of every view for histories int `[n, L]`."""
        return {view: found.vectors for view, found in self.interests(rows).items()}

    def compute_loss(self, inputs, training=False):
        """Computes the multi-task objective; `docs/model.md`, sections 3 and 4."""
        history, labels = inputs[SEQUENCE][:, :-1], inputs[SEQUENCE][:, 1:]
        drawn, has_target = draw_positions(
            wanted_positions(inputs[SEQUENCE], inputs[IS_TARGET]), self.positions_per_sequence
        )
        targets = tf.boolean_mask(tf.gather(labels, drawn, batch_dims=1), has_target) - 1
        # And the last position, which stands for the window in the cross-view loss.
        last = tf.fill([tf.shape(history)[0], 1], tf.shape(history)[1] - 1)
        positions = tf.concat([drawn, last], axis=1)

        found: dict[str, Interests] = {}
        tasks: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}
        tables = self._tables(self.catalogue.num_trained + 1, training)
        for view, table in tables.items():
            result = self.view_interests(view, tables, history, positions, training)
            # Not strided slices, here and below: see `MultiScalePatching`.
            at_drawn, _ = tf.split(result.vectors, [tf.shape(drawn)[1], 1], axis=1)
            queries = tf.boolean_mask(at_drawn, has_target) / self.config.score_temperature
            tasks[view] = queries, tf.slice(table, [1, 0], [-1, -1])
            found[view] = result
        total, losses = self.task_loss.of_views(tasks, targets, self._task_weights)
        for view, result in found.items():
            balance = self._balance(result.allocation, result.mask)
            total += self.loss_config.balance_weight * balance
            self._track_view(view, balance, tasks[view][0])
        for name, loss in losses.items():
            self._trackers[f"{name}_loss"].update_state(loss)
        if self.has_both_views:
            total += self.cross_view_loss(found, inputs[USER])
        self._trackers["loss"].update_state(total)
        return total

    def _track_view(self, view, balance, queries):
        self._trackers[f"{view}_interests_in_use"].update_state(in_use(balance, queries.shape[1]))
        self._trackers[f"{view}_interest_cosine"].update_state(mean_cosine(queries))

    @untranslated
    def train_step(self, inputs):
        """One step: as in `tfrs.Model`, with loss scaling under float16."""
        scales = isinstance(self.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        wanted = wanted_positions(inputs[SEQUENCE], inputs[IS_TARGET])
        share = share_of_replica(wanted, self.positions_per_sequence)
        with tf.GradientTape() as tape:
            loss = share * self.compute_loss(inputs, training=True)
            scaled = self.optimizer.get_scaled_loss(loss) if scales else loss
        gradients = tape.gradient(scaled, self.trainable_variables)
        if scales:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {name: tracker.result() for name, tracker in self._trackers.items()}

    @untranslated
    def test_step(self, inputs):
        """The losses on a batch, without noise or dropout."""
        self.compute_loss(inputs, training=False)
        return {name: tracker.result() for name, tracker in self._trackers.items()}

    @property
    def metrics(self):
        """Means over an epoch of the losses and of the interest-collapse diagnostics."""
        return list(self._trackers.values())
