"""One view of a history: from item vectors to interests."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from bivrec_tf.config import ModelConfig
from bivrec_tf.layers import InterestDecomposition, MultiScalePatching


class Interests(NamedTuple):
    """What a view makes of histories.

    Attributes:
      vectors: float `[n, K, D]`.
      allocation: float32 `[batch, K, tokens]`, soft allocation of tokens to interests.
      mask: bool `[batch, tokens]`.
    """

    vectors: tf.Tensor
    allocation: tf.Tensor
    mask: tf.Tensor


class ViewTower(tf_keras.layers.Layer):
    """Multi-scale patching and interest decomposition of one view.

    Args:
      config: The model's architecture.
      **kwargs: Passed to the base class.

    Inputs: `items`, float `[batch, length, D]`; `mask`, bool `[batch, length]`; `positions`, as
      for `ClusterAttention`.
    Outputs: `Interests`.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        causal = config.form == "causal"
        self._patching = MultiScalePatching(
            config.scales, config.max_history, causal, config.dropout, name="multi_scale_patching"
        )
        self._decomposition = InterestDecomposition(
            num_interests=config.num_interests,
            context_blocks=config.context_blocks,
            attention_heads=config.attention_heads,
            causal=causal,
            max_length=config.max_history,
            tokens_per_position=len(config.scales) if causal else 1,
            top_n=config.assignment_top_n,
            temperature=config.assignment_temperature,
            dropout=config.dropout,
            name="interest_decomposition",
        )

    def call(self, items, mask, positions=None, training=None):
        tokens, token_mask = self._patching(items, mask, training=training)
        vectors, allocation = self._decomposition(tokens, token_mask, positions, training=training)
        return Interests(vectors, allocation, token_mask)

    def item_allocation(self, allocation: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Averages the allocation of an item's tokens over the scales.

        Args:
          allocation: float `[batch, K, tokens]`, as in `Interests`.
          length: Items in the history, padding included.

        Returns:
          float32 `[batch, K, length]`.
        """
        scales = self.config.scales
        if self.config.form == "causal":
            batch, interests, _ = tf.unstack(tf.shape(allocation))
            by_scale = tf.reshape(allocation, [batch, interests, length, len(scales)])
            return tf.reduce_mean(by_scale, axis=3)
        total, start = 0.0, 0
        for scale in scales:
            patches = -(-length // scale)
            # Patches are aligned at the most recent item.
            patch = patches - 1 - tf.range(length - 1, -1, -1) // scale
            total += tf.gather(allocation, start + patch, axis=2)
            start += patches
        return total / len(scales)
