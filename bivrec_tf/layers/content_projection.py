"""The multimodal view's item vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from bivrec_tf.layers.layer_normalization import LayerNormalization


class ContentProjection(tf_keras.layers.Layer):
    """Frozen content features of an item, of any modalities, to one trained vector.

    `e(v) = LayerNorm(W_o concat_m( present ? LayerNorm(W_m f_m(v)) : u_m ))`, where `f_m` is
    standardised with statistics of the catalogue and `u_m` is a learned "missing" vector. Nothing
    here depends on an item's id: two items with the same content have the same vector, and items
    that training never saw have one too.

    Args:
      modalities: Feature dimension of every modality, by name.
      dimension: Width of the item vectors.
      modality_dropout: Chance, in training, that a present modality of an item counts as missing.
      **kwargs: Passed to the base class.

    Inputs: `features`, a float `[n, modalities[m]]` for every modality `m`; `presence`, a bool
      `[n]` for every modality; `standardised_by`, the `statistics` by which the features have been
      standardised already, none where they are raw.
    Output shape: float `[n, dimension]`.

    Example:
      >>> layer = ContentProjection({"text": 3}, dimension=2)
      >>> layer({"text": tf.ones([5, 3])}, {"text": tf.ones([5], tf.bool)}).shape
      TensorShape([5, 2])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`, section 0.
    """

    def __init__(
        self,
        modalities: Mapping[str, int],
        dimension: int,
        modality_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # Raw features are of any size and are standardised in float32: Keras must not cast them.
        super().__init__(autocast=False, **kwargs)
        # Sorted: the concatenation must not depend on the order in which a mapping was written.
        self.modalities = dict(sorted(modalities.items()))
        self.dimension = dimension
        self.modality_dropout = modality_dropout
        self._means: dict[str, tf.Variable] = {}
        self._scales: dict[str, tf.Variable] = {}
        self._missing: dict[str, tf.Variable] = {}
        self._projections = {
            name: tf_keras.layers.Dense(dimension, name=f"project_{name}")
            for name in self.modalities
        }
        self._norms = {name: LayerNormalization(name=f"norm_{name}") for name in self.modalities}
        self._output = tf_keras.layers.Dense(dimension, use_bias=False, name="output")
        # Vectors of length about 1, as in the id table: the two views start on one scale.
        self._output_norm = LayerNormalization(dimension**-0.5, name="output_norm")

    def build(self, input_shape):
        for name, size in self.modalities.items():
            self._means[name], self._scales[name] = (
                self.add_weight(
                    f"{statistic}_{name}",
                    [size],
                    initializer=initializer,
                    trainable=False,
                    experimental_autocast=False,
                )
                for statistic, initializer in (("mean", "zeros"), ("scale", "ones"))
            )
            self._missing[name] = self.add_weight(
                f"missing_{name}",
                [self.dimension],
                initializer=tf_keras.initializers.RandomNormal(stddev=0.1),
            )
        super().build(input_shape)

    def adapt(self, features: Mapping[str, Any], presence: Mapping[str, Any]) -> None:
        """Sets the standardisation from the catalogue's present features.

        Args:
          features: float `[n, modalities[m]]` for every modality `m`.
          presence: bool `[n]` for every modality.
        """
        if not self.built:
            self.build(None)
        for name, size in self.modalities.items():
            present = tf.boolean_mask(tf.cast(features[name], tf.float32), presence[name])
            if present.shape[0] == 0:
                continue
            mean, variance = tf.nn.moments(present, axes=[0])
            self._means[name].assign(mean)
            # A feature that never varies carries nothing: centre it, do not blow it up.
            self._scales[name].assign(
                tf.where(variance > 1e-12, tf.math.rsqrt(variance + 1e-12), tf.ones([size]))
            )

    def start_from(self, kernels: Mapping[str, np.ndarray]) -> None:
        """Sets the first weights: each modality by its kernel, and their mean as the output.

        Args:
          kernels: float `[modalities[m], dimension]`; modalities without one stay as they are.
        """
        if not self.built:
            self.build(None)
        share = np.eye(self.dimension) / len(self.modalities) ** 0.5
        if not self._output.built:
            with tf.name_scope(self._output.name):
                self._output.build([None, len(self.modalities) * self.dimension])
        self._output.kernel.assign(np.tile(share, [len(self.modalities), 1]))
        for name, kernel in kernels.items():
            self._layer(name).kernel.assign(kernel)

    def statistics(self) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        """Returns mean and scale of the standardisation, float32 `[modalities[m]]`, by modality."""
        return {
            name: (tf.identity(self._means[name]), tf.identity(self._scales[name]))
            for name in self.modalities
        }

    def standardise(self, features: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Returns raw features, float `[n, modalities[m]]`, standardised by `statistics`."""
        return {
            name: (tf.cast(features[name], tf.float32) - self._means[name]) * self._scales[name]
            for name in self.modalities
        }

    def call(self, features, presence, standardised_by=None, training=None):
        if standardised_by is None:
            features, standardised_by = self.standardise(features), self.statistics()
        parts = []
        for name in self.modalities:
            projected = self._project(name, features[name], *standardised_by[name])
            projected = self._norms[name](projected)
            present = tf.cast(presence[name], tf.bool)
            if training and self.modality_dropout:
                present &= tf.random.uniform(tf.shape(present)) >= self.modality_dropout
            missing = tf.cast(self._missing[name], projected.dtype)
            parts.append(tf.where(present[:, tf.newaxis], projected, missing))
        return self._output_norm(self._output(tf.concat(parts, axis=-1)))

    def _project(self, name, features, mean, scale):
        """Projects features that were standardised before, by other statistics or the same.

        The difference goes into the weights, so that nothing is computed on the whole features but
        the product.
        """
        layer = self._layer(name)
        kernel = tf.cast(layer.kernel, tf.float32)
        stretch = (self._scales[name] / scale)[:, tf.newaxis]
        shift = (mean - self._means[name]) * self._scales[name]
        bias = tf.cast(layer.bias, tf.float32) + tf.linalg.matvec(kernel, shift, transpose_a=True)
        product = tf.matmul(
            tf.cast(features, self.compute_dtype), tf.cast(stretch * kernel, self.compute_dtype)
        )
        return product + tf.cast(bias, self.compute_dtype)

    def _layer(self, name: str) -> tf_keras.layers.Dense:
        """The dense layer of a modality, built."""
        layer = self._projections[name]
        if not layer.built:
            # As Keras names what a layer builds when it is called.
            with tf.name_scope(layer.name):
                layer.build([None, self.modalities[name]])
        return layer

    def get_config(self):
        return {
            **super().get_config(),
            "modalities": self.modalities,
            "dimension": self.dimension,
            "modality_dropout": self.modality_dropout,
        }
