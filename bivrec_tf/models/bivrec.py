"""BiVRec: an id view and a multimodal view of a user, trained together."""

import tensorflow as tf

from bivrec_tf.features import VIEWS
from bivrec_tf.losses import InterestAllocation, SemanticSimilarity
from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import ViewTower

ID, MM = VIEWS


class BiVRec(SequentialRecommender):
    """The model: two towers, two recommendation tasks, and the losses that tie the views.

    Arguments, inputs and errors are those of `SequentialRecommender`.

    Example:
      >>> from bivrec_tf.catalogue import ItemCatalogue
      >>> from bivrec_tf.config import ModelConfig
      >>> catalogue = ItemCatalogue.build(["a", "b", "c"], [3, 2, 1])
      >>> model = BiVRec(ModelConfig(views=("id",), dimension=8), catalogue)
      >>> model.interests(tf.constant([[1, 2]]))["id"].vectors.shape
      TensorShape([1, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`.
    """

    def make_tower(self, view, name):
        """Returns the view's `ViewTower`."""
        return ViewTower(self.config, name=name)

    def build_cross_view(self):
        """Creates the cross-view losses where there are two views."""
        if not self.has_both_views:
            return []
        self._semantic_similarity = SemanticSimilarity(name="semantic_similarity")
        self._interest_allocation = InterestAllocation(self.loss_config.allocation_form)
        return ["semantic_loss", "allocation_loss"]

    def cross_view_loss(self, found, users):
        """The coarse and the fine loss, weighted; `docs/model.md`, section 4."""
        of_window = {view: _last(result.vectors) for view, result in found.items()}
        semantic = self._semantic_similarity(of_window[ID], of_window[MM], users)
        allocation = self._interest_allocation(
            found[ID].allocation, found[MM].allocation, found[ID].mask
        )
        self._trackers["semantic_loss"].update_state(semantic)
        self._trackers["allocation_loss"].update_state(allocation)
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


def _last(vectors: tf.Tensor) -> tf.Tensor:
    """`vectors[:, -1]`, without the gradient of a strided slice, a slow copy."""
    return tf.squeeze(tf.split(vectors, [tf.shape(vectors)[1] - 1, 1], axis=1)[1], axis=1)
