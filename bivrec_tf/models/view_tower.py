"""One view of a history: from item vectors to interests."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from bivrec_tf.config import ModelConfig
from bivrec_tf.layers import InterestDecomposition, MultiScalePatching


class Interests(NamedTuple):
    """What a view makes of histories.

    Attributes:
      vectors: float `[n, m, K, D]` at `m` positions of every history, or `[n, K, D]` at the last.
      allocation: float32 `[n, K, length]`, soft allocation of the history's items to interests.
      mask: bool `[n, length]`.
    """

    vectors: tf.Tensor
    allocation: tf.Tensor
    mask: tf.Tensor


class ViewTower(tf_keras.layers.Layer):
    """Multi-scale patching and interest decomposition of one view.

    Args:
      config: The model's architecture.
      **kwargs: Passed to the base class.

    Inputs: `items`, float `[batch, length, D]`; `mask`, bool `[batch, length]`; `positions`, int
      `[batch, m]`, where interests are wanted.
    Outputs: `Interests`.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self._patching = MultiScalePatching(
            config.scales, config.dropout, name="multi_scale_patching"
        )
        self._decomposition = InterestDecomposition(
            num_interests=config.num_interests,
            context_blocks=config.context_blocks,
            attention_heads=config.attention_heads,
            max_length=config.max_history,
            top_n=config.assignment_top_n,
            temperature=config.assignment_temperature,
            dropout=config.dropout,
            interest_dropout=config.interest_dropout,
            gaussian=config.gaussian_attention,
            cluster=config.cluster_attention,
            name="interest_decomposition",
        )

    def call(self, items, mask, positions, training=None):
        tokens = self._patching(items, mask, training=training)
        vectors, allocation = self._decomposition(tokens, mask, positions, training=training)
        return Interests(vectors, allocation, mask)
