"""Intra-view interest decomposition: from the tokens of a history to K interests."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.cluster_attention import ClusterAttention
from bivrec_tf.layers.columns import scale_columns
from bivrec_tf.layers.context_block import ContextBlock, context_at
from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.gaussian_attention import GaussianAttention
from bivrec_tf.layers.layer_normalization import LayerNormalization

# Of the attentions beside the context, at first: enough for the items of a history to be heard.
_FIRST_SHARE = 0.5


class InterestDecomposition(tf_keras.layers.Layer):
    """Gaussian attention, then cluster attention, and context blocks beside them.

    Interest `k` at position `t` is `z_kt = LayerNorm(h_t + c * LayerNorm(g_kt + r_kt) + b_k)`: the
    context of the present; the pool and the renewal of the interest, with a learned share of every
    dimension, a half at first; and a learned offset that tells interests apart before they hold
    anything. Both attentions pool the tokens themselves: what an interest holds is near the items
    that are like it, and what the context blocks make of tokens is for the present alone.

    Args:
      num_interests: Interests, K.
      context_blocks: Causal Transformer blocks over the tokens, for the present alone; may be 0.
      attention_heads: Heads of a context block.
      max_length: Longest history in items: distances up to it have a bias of their own, and
        interests forget over it.
      top_n: Interests that a token is assigned to.
      temperature: tau of the allocation.
      dropout: Rate inside the blocks, in training.
      interest_dropout: Rate on what the attentions add to the context, in training.
      gaussian: Whether attention is Gaussian; else plain.
      cluster: Whether interests are renewed by cluster attention. Without it the allocation is
        each token's share of the interests' densities.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, length, D]`; `mask`, bool `[batch, length]`; `positions`, int
      `[batch, m]`, where interests are wanted.
    Outputs: interests, float `[batch, m, K, D]`; soft allocation, float32 `[batch, K, length]`.

    Example:
      >>> layer = InterestDecomposition(num_interests=4)
      >>> interests, allocation = layer(
      ...     tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool), tf.constant([[4]]))
      >>> interests.shape
      TensorShape([1, 1, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334; `docs/model.md`, section 2.
    """

    def __init__(
        self,
        num_interests: int,
        context_blocks: int = 1,
        attention_heads: int = 1,
        max_length: int = 50,
        top_n: int = 1,
        temperature: float = 1.0,
        dropout: float = 0.0,
        interest_dropout: float = 0.0,
        gaussian: bool = True,
        cluster: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = num_interests
        self.context_blocks = context_blocks
        self.attention_heads = attention_heads
        self.max_length = max_length
        self.top_n = top_n
        self.temperature = temperature
        self.dropout = dropout
        self.interest_dropout = interest_dropout
        self.gaussian = gaussian
        self.cluster = cluster
        self._blocks = [
            ContextBlock(attention_heads, max_length, dropout, name=f"context_{index}")
            for index in range(context_blocks)
        ]
        self._present_norm = LayerNormalization(name="present_norm")
        self._gaussian = GaussianAttention(
            num_interests, max_length, gaussian, name="gaussian_attention"
        )
        self._cluster = ClusterAttention(top_n, temperature, name="cluster_attention")
        self._interest_dropout = Dropout(interest_dropout, name="interest_dropout")
        self._pool_norm = LayerNormalization(name="pool_norm")
        self._norm = LayerNormalization(name="norm")

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._share = self.add_weight(
            "share", [dimension], initializer=tf_keras.initializers.Constant(_FIRST_SHARE)
        )
        self._offset = self.add_weight(
            "offset",
            [self.num_interests, dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=0.1),
        )
        super().build(input_shape)

    def call(self, tokens, mask, positions, training=None):
        pool = self._gaussian(tokens, mask, positions, training=training)
        if self.cluster:
            renewal, allocation = self._cluster(tokens, mask, positions, pool, training=training)
            state = pool.pooled + renewal
        else:
            allocation = tf.nn.softmax(pool.log_density, axis=1)
            allocation *= tf.cast(mask, tf.float32)[:, tf.newaxis]
            state = pool.pooled
        context = context_at(self._blocks, tokens, mask, positions, training)
        present = tf.expand_dims(self._present_norm(context), 2)
        held = scale_columns(self._pool_norm(state), tf.cast(self._share, state.dtype))
        interests = present + self._interest_dropout(held, training=training)
        return self._norm(interests + tf.cast(self._offset, interests.dtype)), allocation

    def get_config(self):
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "context_blocks": self.context_blocks,
            "attention_heads": self.attention_heads,
            "max_length": self.max_length,
            "top_n": self.top_n,
            "temperature": self.temperature,
            "dropout": self.dropout,
            "interest_dropout": self.interest_dropout,
            "gaussian": self.gaussian,
            "cluster": self.cluster,
        }
