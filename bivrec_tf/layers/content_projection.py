"""The multimodal view's item vectors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.layer_normalization import LayerNormalization
from bivrec_tf.layers.residual import residual_dense

# Features of more values than this keep their strongest directions.
_MOST_COMPONENTS = 256
# Share of the mean variance that is added to every direction's, so that the weakest ones, mostly
# noise, are not blown up to the size of the others.
_FLOOR = 0.01
# Rows whose float64 copies are in memory at once.
_ROWS_AT_ONCE = 8192


class ContentProjection(tf_keras.layers.Layer):
    """Frozen content features of an item, of any modalities, to one trained vector.

    `e(v) = LayerNorm(W_o concat_m( present ? LayerNorm(W_m s(f_m(v))) : u_m ) + h(v))`, where `s`
    whitens features with statistics of the catalogue, `u_m` is a learned "missing" vector, and
    `h(v) = W_2 GELU(W_1 concat_m( present ? s(f_m(v)) : 0 ))` is what modalities say together and
    no linear map does. Nothing here depends on an item's id: two items with the same content have
    the same vector, and items that training never saw have one too.

    Whitening (`s(f) = (f - mean) V (S + floor)^-1/2`, of the covariance `V S V'`; at most 256
    directions) lets the projection learn from every direction of the features alike: those of
    stock encoders have nearly all of their variance in a few (`docs/decisions/0009`).

    Args:
      modalities: Feature dimension of every modality, by name.
      dimension: Width of the item vectors.
      modality_dropout: Chance, in training, that a present modality of an item counts as missing.
      hidden_units: Width of the hidden layer of `h`; 0 leaves `h` out.
      hidden_dropout: Rate on the hidden layer, in training.
      **kwargs: Passed to the base class.

    Inputs: `features`, a float `[n, modalities[m]]` for every modality `m`; `presence`, a bool
      `[n]` for every modality; `whitened`, whether the features come from `whiten` already.
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
        hidden_units: int = 0,
        hidden_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # Raw features are of any size and are whitened in float32: Keras must not cast them.
        super().__init__(autocast=False, **kwargs)
        # Sorted: the concatenation must not depend on the order in which a mapping was written.
        self.modalities = dict(sorted(modalities.items()))
        self.dimension = dimension
        self.modality_dropout = modality_dropout
        self.hidden_units = hidden_units
        self.hidden_dropout = hidden_dropout
        self._means: dict[str, tf.Variable] = {}
        self._whitenings: dict[str, tf.Variable] = {}
        self._missing: dict[str, tf.Variable] = {}
        self._projections = {
            name: Dense(dimension, name=f"project_{name}") for name in self.modalities
        }
        self._norms = {name: LayerNormalization(name=f"norm_{name}") for name in self.modalities}
        self._output = Dense(dimension, use_bias=False, name="output")
        if hidden_units:
            self._expand = Dense(hidden_units, activation="gelu", name="expand")
            self._dropout = Dropout(hidden_dropout)
            self._contract = residual_dense(dimension, use_bias=False, name="contract")
        # Vectors of length about 1, as in the id table: the two views start on one scale.
        self._output_norm = LayerNormalization(dimension**-0.5, name="output_norm")

    def build(self, input_shape):
        for name, size in self.modalities.items():
            components = min(size, _MOST_COMPONENTS)
            frozen = {"trainable": False, "experimental_autocast": False}
            self._means[name] = self.add_weight(
                f"mean_{name}", [size], initializer="zeros", **frozen
            )
            self._whitenings[name] = self.add_weight(
                f"whitening_{name}", [size, components], initializer="identity", **frozen
            )
            self._missing[name] = self.add_weight(
                f"missing_{name}",
                [self.dimension],
                initializer=tf_keras.initializers.RandomNormal(stddev=0.1),
            )
        super().build(input_shape)

    def adapt(self, features: Mapping[str, Any], presence: Mapping[str, Any]) -> None:
        """Sets the whitening from the catalogue's present features.

        Args:
          features: float `[n, modalities[m]]` for every modality `m`.
          presence: bool `[n]` for every modality.
        """
        if not self.built:
            self.build(None)
        for name in self.modalities:
            present = np.asarray(features[name], np.float32)[np.asarray(presence[name], bool)]
            if not len(present):
                continue
            mean, whitening = _whitening(present, self._whitenings[name].shape[1])
            self._means[name].assign(mean)
            self._whitenings[name].assign(whitening)

    def start_from(self, kernels: Mapping[str, np.ndarray]) -> None:
        """Sets the first weights: each modality by its kernel, and their mean as the output.

        Args:
          kernels: float `[r, dimension]`, for features from `whiten`; modalities without one stay
            as they are.
        """
        if not self.built:
            self.build(None)
        share = np.eye(self.dimension) / len(self.modalities) ** 0.5
        output = _built(self._output, len(self.modalities) * self.dimension)
        output.kernel.assign(np.tile(share, [len(self.modalities), 1]))
        for name, kernel in kernels.items():
            self._layer(name).kernel.assign(kernel)

    def whiten(self, features: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Returns raw features, float `[n, modalities[m]]`, whitened, float32 `[n, r]`."""
        return {
            name: tf.matmul(
                tf.cast(features[name], tf.float32) - self._means[name], self._whitenings[name]
            )
            for name in self.modalities
        }

    def call(self, features, presence, whitened=False, training=None):
        if not whitened:
            features = self.whiten(features)
        parts, known = [], []
        for name in self.modalities:
            whitened_features = tf.cast(features[name], self.compute_dtype)
            projected = self._norms[name](self._layer(name)(whitened_features))
            present = tf.cast(presence[name], tf.bool)[:, tf.newaxis]
            if training and self.modality_dropout:
                present &= tf.random.uniform(tf.shape(present)) >= self.modality_dropout
            missing = tf.cast(self._missing[name], projected.dtype)
            parts.append(tf.where(present, projected, missing))
            if self.hidden_units:
                known.append(tf.where(present, whitened_features, 0))
        vectors = self._output(tf.concat(parts, axis=-1))
        if self.hidden_units:
            hidden = self._dropout(self._expand(tf.concat(known, axis=-1)), training=training)
            vectors += self._contract(hidden)
        return self._output_norm(vectors)

    def _layer(self, name: str) -> Dense:
        """The dense layer of a modality, built."""
        return _built(self._projections[name], self._whitenings[name].shape[1])

    def get_config(self):
        return {
            **super().get_config(),
            "modalities": self.modalities,
            "dimension": self.dimension,
            "modality_dropout": self.modality_dropout,
            "hidden_units": self.hidden_units,
            "hidden_dropout": self.hidden_dropout,
        }


def _built(layer: Dense, width: int) -> Dense:
    """Returns a layer, built for inputs of a width."""
    if not layer.built:
        # As Keras names what a layer builds when it is called.
        with tf.name_scope(layer.name):
            layer.build([None, width])
    return layer


def _whitening(features: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[d]` of features `[n, d]`, and the matrix `[d, components]`."""
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros([features.shape[1]] * 2)
    for start in range(0, len(features), _ROWS_AT_ONCE):
        centred = features[start : start + _ROWS_AT_ONCE].astype(np.float64) - mean
        covariance += centred.T @ centred / len(features)
    variances, directions = np.linalg.eigh(covariance)
    strongest = np.argsort(-variances)[:components]
    variances = np.maximum(variances[strongest], 0.0)
    # Features that never vary carry nothing: they are centred, and not blown up.
    floor = _FLOOR * variances.mean() or 1.0
    matrix = directions[:, strongest] / np.sqrt(variances + floor)
    # A direction is one up to its sign; the same one everywhere.
    largest = np.argmax(np.abs(matrix), axis=0)
    matrix *= np.sign(matrix[largest, np.arange(components)])
    return mean.astype(np.float32), matrix.astype(np.float32)
