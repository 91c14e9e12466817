"""Multi-scale interest embedding: a history seen at several grain sizes at once."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.columns import scale_columns
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
        sums, counts, patches = {1: items}, {1: present}, []
        for scale, weight in zip(self.scales, self._weights, strict=True):
            patch = _sum_of_last(scale, sums)
            if scale > 1:
                patch *= tf.math.rsqrt(tf.maximum(_sum_of_last(scale, counts), 1))
            patches.append(scale_columns(patch, tf.cast(weight, patch.dtype)))
        return self._dropout(self._norm(tf.add_n(patches)), training=training)

    def get_config(self):
        return {**super().get_config(), "scales": self.scales, "dropout": self.dropout}


def _sum_of_last(count: int, known: dict[int, tf.Tensor]) -> tf.Tensor:
    """Returns the sum of the last `count` items at every position, from those in `known`.

    Sums of half as many, one of them moved: not a difference of running sums, which would carry the
    rounding error of the whole history into every patch.
    """
    if count not in known:
        newer, older = count - count // 2, count // 2
        known[count] = _sum_of_last(newer, known) + _later(_sum_of_last(older, known), newer)
    return known[count]


def _later(items: tf.Tensor, steps: int) -> tf.Tensor:
    """Moves items to later positions; zeros come in."""
    # Not a strided slice: the gradient of tf.slice is a plain pad, which a CPU does far faster.
    steps = tf.minimum(steps, tf.shape(items)[1])
    kept = tf.slice(items, [0, 0, 0], [-1, tf.shape(items)[1] - steps, -1])
    return tf.pad(kept, [[0, 0], [steps, 0], [0, 0]])
