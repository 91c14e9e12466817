"""Item vectors of the multimodal view: content, projected."""

import numpy as np
import tensorflow as tf

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.co_occurrence import content_kernels
from bivrec_tf.config import ModelConfig
from bivrec_tf.layers import ContentProjection
from bivrec_tf.models.first_vectors import wanted_of_content


class MultimodalItems:
    """The multimodal view's item table, made of all items' content.

    Args:
      catalogue: The items; has at least one modality.
      config: The architecture.

    Attributes:
      projection: The layer with all of its weights.

    Reference: `docs/model.md`, section 0.
    """

    def __init__(self, catalogue: ItemCatalogue, config: ModelConfig) -> None:
        self._catalogue = catalogue
        self.projection = ContentProjection(
            catalogue.modalities,
            config.dimension,
            config.modality_dropout,
            config.content_hidden_units,
            config.content_dropout,
            name="content_projection",
        )
        # Statistics come from the training split alone.
        trained = slice(1, catalogue.num_trained + 1)
        self.projection.adapt(
            {name: values[trained] for name, values in catalogue.content.items()},
            {name: values[trained] for name, values in catalogue.presence.items()},
        )
        self._retained: tuple[tf.Tensor, tf.Tensor] | None = None
        self.prepare()

    def prepare(self) -> None:
        """Whitens the content of all items by the projection's present statistics.

        Once, and not in every step: whoever gives the projection other statistics calls this.
        """
        catalogue = self._catalogue
        content = self.projection.whiten(catalogue.content)
        # Trained items are all that a step reads, and no step should copy them out of the others.
        first_cold = catalogue.num_trained + 1
        self._of_trained, self._of_cold = (
            (
                {name: values[rows] for name, values in content.items()},
                {name: tf.constant(values[rows]) for name, values in catalogue.presence.items()},
            )
            for rows in (slice(1, first_cold), slice(first_cold, None))
        )

    def table(self, rows: int, training: bool = False) -> tf.Tensor:
        """Returns the vectors of the first rows, padding (zero) first: `[rows, D]`.

        Args:
          rows: `num_trained + 1`, or those of the whole catalogue.
          training: Whether modalities may be dropped.
        """
        cold = [self._of_cold] if rows > self._catalogue.num_trained + 1 else []
        parts = [
            self.projection(*content, whitened=True, training=training)
            for content in (self._of_trained, *cold)
        ]
        table = tf.pad(tf.concat(parts, axis=0), [[1, 0], [0, 0]])
        if self._retained is None:
            return table
        own_rows, vectors = self._retained
        inside = own_rows < rows
        return tf.tensor_scatter_nd_update(
            table,
            tf.boolean_mask(own_rows, inside)[:, tf.newaxis],
            tf.cast(tf.boolean_mask(vectors, inside), table.dtype),
        )

    def retain(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Gives items whose content is gone the vectors that they had.

        Args:
          rows: int `[n]`.
          vectors: float `[n, D]`.
        """
        self._retained = (
            (tf.constant(rows, tf.int32), tf.constant(vectors, tf.float32)) if len(rows) else None
        )

    def start_from(self, vectors: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        """Makes the projection what content says of vectors; see `first_vectors`.

        Args:
          vectors: float `[num_trained, D]`, of the trained items.
          known: float `[num_items, any]`, where another model puts items, if there is one.

        Returns:
          What it says of the trained items, float32 `[num_trained, D]`; zero without content.
        """
        content, presence = tf.nest.map_structure(
            lambda *parts: np.concatenate(parts), self._of_trained, self._of_cold
        )
        wanted, weights = wanted_of_content(vectors, self._catalogue.counts[1:], known)
        self.projection.start_from(content_kernels(content, presence, wanted, weights))
        said = self.table(len(vectors) + 1).numpy()[1:]
        return said * np.any(list(presence.values()), axis=0)[: len(vectors), np.newaxis]
