"""BiVRec: an id view and a multimodal view of a user, trained together."""

from typing import Any

import tensorflow as tf

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import LossConfig, ModelConfig
from bivrec_tf.features import VIEWS
from bivrec_tf.losses import InterestAllocation, SemanticSimilarity
from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import ViewTower

ID, MM = VIEWS


class BiVRec(SequentialRecommender):
    """The model: two towers, two recommendation tasks, and the losses that tie the views.

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

    Example:
      >>> catalogue = ItemCatalogue.build(["a", "b", "c"], [3, 2, 1])
      >>> model = BiVRec(ModelConfig(views=("id",), dimension=8), catalogue)
      >>> model.interests(tf.constant([[1, 2]]))["id"].vectors.shape
      TensorShape([1, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`.
    """

    def __init__(
        self,
        config: ModelConfig,
        catalogue: ItemCatalogue,
        loss: LossConfig | None = None,
        positions_per_sequence: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, catalogue, loss, positions_per_sequence, **kwargs)
        self._semantic_similarity = SemanticSimilarity(name="semantic_similarity")
        self._interest_allocation = InterestAllocation(self.loss_config.allocation_form)

    def make_tower(self, view, name):
        """Returns the view's `ViewTower`."""
        return ViewTower(self.config, name=name)

    def more_diagnostics(self):
        """Returns the names of the cross-view losses, with two views."""
        return ["semantic_loss", "allocation_loss"] if self.has_both_views else []

    def cross_view_loss(self, found, users):
        """The coarse and the fine loss, weighted and warmed up; `docs/model.md`, section 4."""
        of_window = {view: result.vectors[:, -1] for view, result in found.items()}
        semantic = self._semantic_similarity(of_window[ID], of_window[MM], users)
        allocation = self._interest_allocation(
            found[ID].allocation, found[MM].allocation, found[ID].mask
        )
        self.trackers["semantic_loss"].update_state(semantic)
        self.trackers["allocation_loss"].update_state(allocation)
        return self._warm_up() * (
            self.loss_config.semantic_weight * semantic
            + self.loss_config.allocation_weight * allocation
        )

    def _warm_up(self):
        steps = self.loss_config.cross_view_warmup_steps
        if not steps or self.optimizer is None:
            return 1.0
        # At least one step's share from the start: no variable is ever without a gradient.
        done = tf.cast(self.optimizer.iterations + 1, tf.float32)
        return tf.minimum(done / float(steps), 1.0)
