"""Intra-view interest decomposition: from the tokens of a history to K interests."""

from typing import Any

import tf_keras

from bivrec_tf.layers.cluster_attention import ClusterAttention
from bivrec_tf.layers.context_block import ContextBlock
from bivrec_tf.layers.gaussian_attention import GaussianAttention


class InterestDecomposition(tf_keras.layers.Layer):
    """Context blocks, then Gaussian attention, then cluster attention.

    Args:
      num_interests: Interests, K.
      context_blocks: Transformer blocks before the decomposition; may be 0.
      attention_heads: Heads of a context block.
      causal: Whether to give interests at every position (`docs/model.md`, section 3b).
      max_length: Longest history in items; the causal form's longest distance.
      tokens_per_position: How many consecutive tokens share a position (causal form).
      top_n: Interests that a token is assigned to.
      temperature: tau of the allocation.
      dropout: Rate inside the blocks, in training.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, tokens, D]`; `mask`, bool `[batch, tokens]`; `positions`,
      optional, as for `ClusterAttention`.
    Outputs: interests, float `[batch, K, D]`, causal `[n, K, D]`; soft allocation, float32
      `[batch, K, tokens]`.

    Example:
      >>> layer = InterestDecomposition(num_interests=4)
      >>> interests, allocation = layer(tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool))
      >>> interests.shape
      TensorShape([1, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`, section 2.
    """

    def __init__(
        self,
        num_interests: int,
        context_blocks: int = 1,
        attention_heads: int = 1,
        causal: bool = False,
        max_length: int = 50,
        tokens_per_position: int = 1,
        top_n: int = 1,
        temperature: float = 1.0,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = num_interests
        self.context_blocks = context_blocks
        self.attention_heads = attention_heads
        self.causal = causal
        self.max_length = max_length
        self.tokens_per_position = tokens_per_position
        self.top_n = top_n
        self.temperature = temperature
        self.dropout = dropout
        self._blocks = [
            ContextBlock(
                attention_heads,
                max_distance=max_length if causal else None,
                tokens_per_position=tokens_per_position,
                dropout=dropout,
                name=f"context_{index}",
            )
            for index in range(context_blocks)
        ]
        self._gaussian = GaussianAttention(
            num_interests, causal, tokens_per_position, name="gaussian_attention"
        )
        self._cluster = ClusterAttention(
            top_n, temperature, causal, tokens_per_position, dropout, name="cluster_attention"
        )

    def call(self, tokens, mask, positions=None, training=None):
        for block in self._blocks:
            tokens = block(tokens, mask, training=training)
        interests = self._gaussian(tokens, mask, training=training)
        return self._cluster(interests, tokens, mask, positions, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "context_blocks": self.context_blocks,
            "attention_heads": self.attention_heads,
            "causal": self.causal,
            "max_length": self.max_length,
            "tokens_per_position": self.tokens_per_position,
            "top_n": self.top_n,
            "temperature": self.temperature,
            "dropout": self.dropout,
        }
