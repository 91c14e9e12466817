"""Models by name, for comparisons."""

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import LossConfig, ModelConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.features import VIEWS
from bivrec_tf.models.bivrec import BiVRec
from bivrec_tf.models.comirec_sa import ComiRecSA
from bivrec_tf.models.popularity import Popularity
from bivrec_tf.models.sasrec import SASRec
from bivrec_tf.models.sequential_recommender import SequentialRecommender

_KINDS: dict[str, tuple[type[SequentialRecommender], tuple[str, ...]]] = {
    "popularity": (Popularity, ("id",)),
    "sasrec": (SASRec, ("id",)),
    "comirec_sa": (ComiRecSA, ("id",)),
    "pure_id": (BiVRec, ("id",)),
    "pure_mm": (BiVRec, ("mm",)),
    "bivrec": (BiVRec, VIEWS),
}
MODEL_NAMES = tuple(_KINDS)
"""What `create_model` knows: baselines first, then BiVRec's views alone, then BiVRec."""


def create_model(
    name: str,
    config: ModelConfig,
    catalogue: ItemCatalogue,
    loss: LossConfig | None = None,
    positions_per_sequence: int | None = None,
) -> SequentialRecommender:
    """Makes the model of a name.

    Args:
      name: One of `MODEL_NAMES`.
      config: The architecture; its `views` give way to those of the name.
      catalogue: The items.
      loss: The objective.
      positions_per_sequence: Positions drawn from a sequence in a step; none for all of them.

    Raises:
      ConfigError: There is no such model, or it needs content that no item has.

    Example:
      >>> catalogue = ItemCatalogue.build(["a", "b", "c"], [3, 2, 1])
      >>> create_model("pure_id", ModelConfig(), catalogue).config.views
      ('id',)
    """
    if name not in _KINDS:
        raise ConfigError(f"there is no model {name!r}; known are {', '.join(MODEL_NAMES)}")
    kind, views = _KINDS[name]
    config = config.model_copy(update={"views": views})
    return kind(config, catalogue, loss, positions_per_sequence)


def uses_content(name: str) -> bool:
    """Tells whether the model of a name reads the items' content."""
    return "mm" in _KINDS[name][1]
