"""The id view's trained item table."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


class ItemEmbedding(tf_keras.layers.Layer):
    """A trained vector for every item, with a padding row that is always zero.

    Row 0 is padding: it is not stored, so no optimizer, decay or checkpoint can move it.

    Args:
      num_items: Items with an id row, without padding.
      dimension: Width of a vector.
      **kwargs: Passed to the base class.

    Input shape: int `[...]`, rows in `0 .. num_items`.
    Output shape: float `[..., dimension]`.

    Example:
      >>> layer = ItemEmbedding(num_items=3, dimension=2)
      >>> layer(tf.constant([[0, 3]])).shape
      TensorShape([1, 2, 2])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`, section 0.
    """

    def __init__(self, num_items: int, dimension: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_items = num_items
        self.dimension = dimension

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=[self.num_items, self.dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=self.dimension**-0.5),
        )
        super().build(input_shape)

    def start_from(self, vectors: np.ndarray) -> None:
        """Sets the first vectors of all items, float `[num_items, dimension]`."""
        if not self.built:
            self.build(None)
        self.embeddings.assign(vectors)

    def table(self) -> tf.Tensor:
        """Returns all vectors, padding first: float `[num_items + 1, dimension]`."""
        if not self.built:
            self.build(None)
        embeddings = tf.cast(self.embeddings, self.compute_dtype)
        return tf.concat([tf.zeros_like(embeddings[:1]), embeddings], axis=0)

    def call(self, rows):
        return tf.gather(self.table(), rows)

    def get_config(self):
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "dimension": self.dimension,
        }
