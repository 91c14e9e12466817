"""Multi-scale interest embedding: a history seen at several grain sizes at once."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.layer_normalization import LayerNormalization


class MultiScalePatching(tf_keras.layers.Layer):
    """Adds up, at every position, the patches of several lengths that end there.

    The patch of scale `s` at position `t` is the sum of the last `s` items up to `t`, over the
    square root of their count, so that all scales have one variance. A position's token is the
    weighted sum of its patches, `x_t = LayerNorm(sum_s gamma_s * patch_s(t))`, with a learned
    weight `gamma_s` for every scale and dimension: 1 for the shortest scale and 0 for the others
    at first, so that a longer patch is added where it pays.

    Args:
      scales: Patch lengths, in items.
      dropout: Rate on the tokens, in training.
      **kwargs: Passed to the base class.

    Inputs: `items`, float `[batch, length, dimension]`; `mask`, bool `[batch, length]`; padding
      stands on the left.
    Output shape: float `[batch, length, dimension]`; nothing is meant by tokens at padding.

    Example:
      >>> layer = MultiScalePatching(scales=(1, 2))
      >>> layer(tf.ones([1, 3, 8]), tf.ones([1, 3], tf.bool)).shape
      TensorShape([1, 3, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Multi-scale Interest Embedding;
    `docs/model.md`, section 1.
    """

    def __init__(self, scales: Sequence[int], dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scales = tuple(scales)
        self.dropout = dropout
        self._norm = LayerNormalization(name="norm")
        self._dropout = Dropout(dropout)

    def build(self, input_shape):
        shortest = min(self.scales)
        self._weights = [
            self.add_weight(
                f"scale_weight_{scale}",
                [int(input_shape[-1])],
                initializer="ones" if scale == shortest else "zeros",
            )
            for scale in self.scales
        ]
        super().build(input_shape)

    def call(self, items, mask, training=None):
        present = tf.cast(mask, items.dtype)[..., tf.newaxis]
        items = items * present
        weights = dict(zip(self.scales, self._weights, strict=True))
        tokens, sums, counts = tf.zeros_like(items), items, present
        for scale in range(1, max(self.scales) + 1):
            if scale > 1:
                # Adding shifted copies, not differences of running sums: those would carry the
                # rounding error of the whole history into every patch.
                sums += _later(items, scale - 1)
                counts += _later(present, scale - 1)
            if scale in weights:
                weight = tf.cast(weights[scale], sums.dtype)
                tokens += sums * tf.math.rsqrt(tf.maximum(counts, 1)) * weight
        return self._dropout(self._norm(tokens), training=training)

    def get_config(self):
        return {**super().get_config(), "scales": self.scales, "dropout": self.dropout}


def _later(items: tf.Tensor, steps: int) -> tf.Tensor:
    """Moves items to later positions; zeros come in."""
    # Not a strided slice: the gradient of tf.slice is a plain pad, which a CPU does far faster.
    steps = tf.minimum(steps, tf.shape(items)[1])
    kept = tf.slice(items, [0, 0, 0], [-1, tf.shape(items)[1] - steps, -1])
    return tf.pad(kept, [[0, 0], [steps, 0], [0, 0]])
