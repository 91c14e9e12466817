"""Multi-scale interest embedding: a history seen at several grain sizes at once."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras


class MultiScalePatching(tf_keras.layers.Layer):
    """Adds up the item vectors of patches of several lengths.

    In the *patch* form, scale `s` cuts the history into patches of `s` consecutive items, aligned
    at the most recent item, and every token also carries its patch's distance from the present.
    In the *causal* form, scale `s` at position `t` is the sum of the last `s` items up to `t` (a
    sliding window of stride 1), and distance is left to the context blocks: it differs for every
    position that looks back. A patch's sum is divided by the square root of its count of items,
    so that all scales have one variance.

    Args:
      scales: Patch lengths, in items.
      max_length: Longest history.
      causal: Which of the two forms.
      dropout: Rate on the tokens, in training.
      **kwargs: Passed to the base class.

    Inputs: `items`, float `[batch, length, dimension]`, zero at padding; `mask`, bool
      `[batch, length]`; padding stands on the left.
    Outputs: tokens, float `[batch, tokens, dimension]`; their mask, bool `[batch, tokens]`.
      Patch form: `tokens = sum over s of ceil(length / s)`, scale after scale, oldest first.
      Causal form: `tokens = length * len(scales)`, position after position.
    Masking: a patch is valid if any of its items is (patch); if its last item is (causal).

    Example:
      >>> layer = MultiScalePatching(scales=(1, 2), max_length=4)
      >>> tokens, mask = layer(tf.ones([1, 3, 8]), tf.ones([1, 3], tf.bool))
      >>> tokens.shape
      TensorShape([1, 5, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Multi-scale Interest Embedding;
    `docs/model.md`, sections 1 and 3b.
    """

    def __init__(
        self,
        scales: Sequence[int],
        max_length: int,
        causal: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scales = tuple(scales)
        self.max_length = max_length
        self.causal = causal
        self.dropout = dropout
        self._distance_embeddings: list[tf.Variable] = []
        self._norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self._dropout = tf_keras.layers.Dropout(dropout)

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._scale_embeddings = self.add_weight(
            "scale_embeddings",
            [len(self.scales), dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=0.02),
        )
        if not self.causal:
            self._distance_embeddings = [
                self.add_weight(
                    f"distance_embeddings_{scale}",
                    [math.ceil(self.max_length / scale), dimension],
                    initializer=tf_keras.initializers.RandomNormal(stddev=0.02),
                )
                for scale in self.scales
            ]
        super().build(input_shape)

    def call(self, items, mask, training=None):
        present = tf.cast(mask, items.dtype)[..., tf.newaxis]
        items = items * present
        if self.causal:
            tokens, token_mask = self._sliding_windows(items, present, mask)
        else:
            tokens, token_mask = self._patches(items, present)
        return self._dropout(self._norm(tokens), training=training), token_mask

    def _patches(self, items, present):
        batch, length, dimension = tf.unstack(tf.shape(items))
        all_tokens, all_masks = [], []
        for index, scale in enumerate(self.scales):
            patches = -(-length // scale)
            front = [[0, 0], [patches * scale - length, 0], [0, 0]]
            blocks = tf.reshape(tf.pad(items, front), [batch, patches, scale, dimension])
            counts = tf.reduce_sum(
                tf.reshape(tf.pad(present, front), [batch, patches, scale, 1]), axis=2
            )
            sums = tf.reduce_sum(blocks, axis=2) * tf.math.rsqrt(tf.maximum(counts, 1))
            distances = tf.reverse(self._distance_embeddings[index][:patches], axis=[0])
            embedding = tf.cast(self._scale_embeddings[index] + distances, sums.dtype)
            all_tokens.append(sums + embedding)
            all_masks.append(counts[..., 0] > 0)
        return tf.concat(all_tokens, axis=1), tf.concat(all_masks, axis=1)

    def _sliding_windows(self, items, present, mask):
        batch, length, dimension = tf.unstack(tf.shape(items))
        all_tokens = []
        for index, scale in enumerate(self.scales):
            sums, counts = items, present
            # Adding shifted copies, not differences of running sums: those would carry the
            # rounding error of the whole history into every window.
            for shift in range(1, scale):
                front = [[0, 0], [shift, 0], [0, 0]]
                sums += tf.pad(items, front)[:, :length]
                counts += tf.pad(present, front)[:, :length]
            windows = sums * tf.math.rsqrt(tf.maximum(counts, 1))
            all_tokens.append(windows + tf.cast(self._scale_embeddings[index], windows.dtype))
        tokens = tf.reshape(tf.stack(all_tokens, axis=2), [batch, -1, dimension])
        token_mask = tf.repeat(mask, len(self.scales), axis=1)
        return tokens, token_mask

    def get_config(self):
        return {
            **super().get_config(),
            "scales": self.scales,
            "max_length": self.max_length,
            "causal": self.causal,
            "dropout": self.dropout,
        }
