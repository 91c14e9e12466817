"""One pre-norm Transformer block over the tokens of a history."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.layer_normalization import LayerNormalization
from bivrec_tf.layers.masking import masked_softmax
from bivrec_tf.layers.residual import residual_dense


class ContextBlock(tf_keras.layers.Layer):
    """Self-attention and a feed-forward network, each behind a layer norm, with residuals.

    The block is causal: a token sees itself and earlier tokens only, and every head has a learned
    bias for every distance between positions. The bias depends on distances alone, so a history
    means the same wherever it stands in a window.

    Args:
      num_heads: Attention heads; must divide the width of the tokens.
      max_distance: Longest distance with a bias of its own; longer ones share the last.
      dropout: Rate on both branches, in training.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, tokens, dimension]`; `mask`, bool `[batch, tokens]`.
    Output shape: float `[batch, tokens, dimension]`.
    Masking: masked tokens are never attended to; their own outputs mean nothing.

    Example:
      >>> layer = ContextBlock(num_heads=2, max_distance=5)
      >>> layer(tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool)).shape
      TensorShape([1, 5, 8])

    Reference: `docs/model.md`, section 2.1.
    """

    def __init__(
        self,
        num_heads: int,
        max_distance: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.max_distance = max_distance
        self.dropout = dropout
        self._attention_norm = LayerNormalization(name="norm_1")
        self._feed_forward_norm = LayerNormalization(name="norm_2")
        self._dropout = Dropout(dropout)

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._query_key_value = Dense(3 * dimension, name="query_key_value")
        self._output = residual_dense(dimension, name="output")
        self._expand = Dense(4 * dimension, activation="gelu", name="expand")
        self._contract = residual_dense(dimension, name="contract")
        self._distance_bias = self.add_weight(
            "distance_bias", [self.num_heads, self.max_distance], initializer="zeros"
        )
        super().build(input_shape)

    def call(self, tokens, mask, training=None):
        attended = self._attend(self._attention_norm(tokens), mask, training)
        tokens = tokens + self._dropout(attended, training=training)
        expanded = self._expand(self._feed_forward_norm(tokens))
        return tokens + self._dropout(self._contract(expanded), training=training)

    def _attend(self, tokens, mask, training):
        batch, count, dimension = tf.unstack(tf.shape(tokens))
        heads = tf.reshape(
            self._query_key_value(tokens),
            [batch, count, 3, self.num_heads, dimension // self.num_heads],
        )
        query, key, value = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))
        scale = tf.math.rsqrt(tf.cast(dimension // self.num_heads, tokens.dtype))
        logits = tf.matmul(query * scale, key, transpose_b=True)
        position = tf.range(count)
        distance = position[:, tf.newaxis] - position[tf.newaxis, :]
        bias = tf.gather(
            self._distance_bias, tf.clip_by_value(distance, 0, self.max_distance - 1), axis=1
        )
        allowed = mask[:, tf.newaxis, tf.newaxis, :] & (distance >= 0)
        weights = masked_softmax(logits + tf.cast(bias, logits.dtype), allowed)
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return self._output(tf.reshape(mixed, [batch, count, dimension]))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "max_distance": self.max_distance,
            "dropout": self.dropout,
        }
