"""One pre-norm Transformer block over the tokens of a history."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.masking import masked_softmax


class ContextBlock(tf_keras.layers.Layer):
    """Self-attention and a feed-forward network, each behind a layer norm, with residuals.

    With `max_distance` set, the block is causal: a token sees tokens of its own and of earlier
    positions only, and every head has a learned bias for every distance between positions. The
    bias depends on distances alone, so a history means the same wherever it stands in a window.

    Args:
      num_heads: Attention heads; must divide the width of the tokens.
      max_distance: Longest distance between positions with a bias of its own; none for the
        bidirectional form.
      tokens_per_position: How many consecutive tokens share a position (causal form).
      dropout: Rate on attention weights and on both branches, in training.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, tokens, dimension]`; `mask`, bool `[batch, tokens]`.
    Output shape: float `[batch, tokens, dimension]`.
    Masking: masked tokens are never attended to; their own outputs mean nothing.

    Example:
      >>> ContextBlock(num_heads=2)(tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool)).shape
      TensorShape([1, 5, 8])

    Reference: `docs/model.md`, sections 2.1 and 3b.
    """

    def __init__(
        self,
        num_heads: int,
        max_distance: int | None = None,
        tokens_per_position: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.max_distance = max_distance
        self.tokens_per_position = tokens_per_position
        self.dropout = dropout
        self._attention_norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm_1")
        self._feed_forward_norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm_2")
        self._dropout = tf_keras.layers.Dropout(dropout)

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._query_key_value = tf_keras.layers.Dense(3 * dimension, name="query_key_value")
        self._output = tf_keras.layers.Dense(dimension, name="output")
        self._expand = tf_keras.layers.Dense(4 * dimension, activation="gelu", name="expand")
        self._contract = tf_keras.layers.Dense(dimension, name="contract")
        if self.max_distance is not None:
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
        allowed = mask[:, tf.newaxis, tf.newaxis, :]
        if self.max_distance is not None:
            position = tf.range(count) // self.tokens_per_position
            distance = position[:, tf.newaxis] - position[tf.newaxis, :]
            bias = tf.gather(
                self._distance_bias, tf.clip_by_value(distance, 0, self.max_distance - 1), axis=1
            )
            logits += tf.cast(bias, logits.dtype)
            allowed &= (distance >= 0)[tf.newaxis, tf.newaxis]
        weights = self._dropout(masked_softmax(logits, allowed), training=training)
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return self._output(tf.reshape(mixed, [batch, count, dimension]))

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "max_distance": self.max_distance,
            "tokens_per_position": self.tokens_per_position,
            "dropout": self.dropout,
        }
