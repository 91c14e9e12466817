"""One pre-norm Transformer block over the tokens of a history."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.layer_normalization import LayerNormalization
from bivrec_tf.layers.masking import masked_softmax, visible
from bivrec_tf.layers.residual import residual_dense

# So many positions are answered without any token's key or value.
_FEW = 4


def _spread_of_a_third() -> tf_keras.initializers.Initializer:
    """Returns Glorot's for one kernel of queries, keys and values: logits start small."""
    return tf_keras.initializers.VarianceScaling(0.5, "fan_in", "uniform")


class ContextBlock(tf_keras.layers.Layer):
    """Self-attention and a feed-forward network, each behind a layer norm, with residuals.

    The block is causal: a token sees itself and earlier tokens only, and every head has a learned
    bias for every distance between positions. The bias depends on distances alone, so a history
    means the same wherever it stands in a window. Norm, keys and values are of every token;
    queries, output and feed-forward network are computed at the positions asked for alone. Where
    these are known to be few, as in serving, keys and values are of none: `q . (W x)` is
    `(W' q) . x`, and a mean of values is the value of a mean.

    Args:
      num_heads: Attention heads; must divide the width of the tokens.
      max_distance: Longest distance with a bias of its own; longer ones share the last.
      dropout: Rate on both branches, in training.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, tokens, dimension]`; `mask`, bool `[batch, tokens]`;
      `positions`, int `[batch, m]`, the tokens whose outputs are wanted; none: every token.
    Output shape: float `[batch, m, dimension]`, or `[batch, tokens, dimension]`.
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
        self._query = Dense(dimension, kernel_initializer=_spread_of_a_third(), name="query")
        self._key_value = Dense(
            2 * dimension, kernel_initializer=_spread_of_a_third(), name="key_value"
        )
        self._output = residual_dense(dimension, name="output")
        self._expand = Dense(4 * dimension, activation="gelu", name="expand")
        self._contract = residual_dense(dimension, name="contract")
        self._distance_bias = self.add_weight(
            "distance_bias", [self.num_heads, self.max_distance], initializer="zeros"
        )
        super().build(input_shape)

    def call(self, tokens, mask, positions=None, training=None):
        asking = normal = self._attention_norm(tokens)
        bias = self._bias(tf.shape(tokens)[1])
        # Whether any token stands at a position or before it.
        any_seen = tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
        if positions is None:
            bias = bias[tf.newaxis]
        else:
            asking, tokens, any_seen = (
                tf.gather(of, positions, batch_dims=1) for of in (normal, tokens, any_seen)
            )
            # Whole rows of a table: gathering bias by bias would scatter as many gradients.
            bias = tf.gather(bias, positions)
        asked = None if positions is None else positions.shape[1]
        if asked is not None and asked <= _FEW:
            attended = self._attend_at_few(asking, normal, bias, visible(mask, positions))
        else:
            attended = self._attend(asking, normal, bias, mask, any_seen)
        tokens = tokens + self._dropout(attended, training=training)
        expanded = self._expand(self._feed_forward_norm(tokens))
        return tokens + self._dropout(self._contract(expanded), training=training)

    def _attend(self, asking, tokens, bias, mask, any_seen):
        key, value = tf.split(self._key_value(tokens), 2, axis=-1)
        query, key, value = (self._heads(part) for part in (self._query(asking), key, value))
        scale = tf.math.rsqrt(tf.cast(query.shape[-1], query.dtype))
        logits = tf.matmul(query * scale, key, transpose_b=True)
        # Added to what is added anyway: a mask of all pairs would be made, and gone over twice.
        hidden = tf.where(mask, 0.0, self._never())[:, tf.newaxis, tf.newaxis]
        added = tf.transpose(bias, [0, 2, 1, 3]) + hidden
        weights = tf.nn.softmax(logits + tf.cast(added, logits.dtype))
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        mixed = tf.reshape(mixed, tf.shape(asking))
        return self._output(mixed * tf.cast(any_seen, mixed.dtype)[:, :, tf.newaxis])

    def _attend_at_few(self, asking, tokens, bias, seen):
        if not self._key_value.built:
            self._key_value(tokens)
        batch, count = tf.unstack(tf.shape(asking)[:2])
        length = tf.shape(tokens)[1]
        heads, width = self.num_heads, tokens.shape[-1]
        # The key's bias is the same for all tokens, which a softmax does not see.
        of_key, of_value = (
            tf.reshape(tf.cast(kernel, tokens.dtype), [width, heads, width // heads])
            for kernel in tf.split(self._key_value.kernel, 2, axis=1)
        )
        _, bias_of_value = tf.split(tf.cast(self._key_value.bias, tokens.dtype), 2)
        # Heads in front: a product for each, of all histories' positions.
        query = tf.reshape(self._query(asking), [-1, heads, width // heads])
        query = tf.transpose(query, [1, 0, 2])
        scale = tf.math.rsqrt(tf.cast(query.shape[-1], query.dtype))
        query = tf.matmul(query * scale, tf.transpose(of_key, [1, 2, 0]))
        query = tf.reshape(tf.transpose(query, [1, 0, 2]), [batch, count * heads, width])
        logits = tf.matmul(query, tokens, transpose_b=True)
        logits = tf.reshape(logits, [batch, count, heads, length]) + tf.cast(bias, logits.dtype)
        weights = masked_softmax(logits, tf.expand_dims(seen, 2))
        weights = tf.reshape(weights, [batch, count * heads, length])
        mixed = tf.reshape(tf.matmul(weights, tokens), [batch * count, heads, width])
        mixed = tf.matmul(tf.transpose(mixed, [1, 0, 2]), tf.transpose(of_value, [1, 0, 2]))
        # Weights add up to 1, or to 0 where there is no token.
        given = tf.reshape(tf.reduce_sum(weights, axis=2), [batch * count, heads, 1])
        mixed = tf.transpose(mixed, [1, 0, 2]) + given * tf.reshape(bias_of_value, [heads, -1])
        return self._output(tf.reshape(mixed, tf.shape(asking)))

    def _heads(self, tokens):
        """Returns `[batch, heads, tokens, dimension / heads]`."""
        size = tokens.shape[-1] // self.num_heads
        parted = tf.reshape(tokens, [*tf.unstack(tf.shape(tokens)[:2]), self.num_heads, size])
        return tf.transpose(parted, [0, 2, 1, 3])

    def _bias(self, count):
        """Returns what every position adds to the logits of all tokens: `[count, heads, count]`.

        To those of later tokens, so much that nothing is left of their weights.
        """
        position = tf.range(count)
        distance = position[:, tf.newaxis] - position[tf.newaxis, :]
        # float32: gradients of all rows that ask are summed into it.
        of_distance = tf.transpose(tf.cast(self._distance_bias, tf.float32))
        bias = tf.gather(of_distance, tf.clip_by_value(distance, 0, self.max_distance - 1))
        bias = tf.where(distance[:, :, tf.newaxis] < 0, self._never(), bias)
        return tf.transpose(bias, [0, 2, 1])

    def _never(self):
        # Twice as much, for a later token that is padding besides, is still a number.
        return tf.constant(tf.as_dtype(self.compute_dtype).min / 4, tf.float32)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "max_distance": self.max_distance,
            "dropout": self.dropout,
        }


def context_at(
    blocks: Sequence[ContextBlock],
    tokens: tf.Tensor,
    mask: tf.Tensor,
    positions: tf.Tensor,
    training: bool | None = None,
) -> tf.Tensor:
    """Runs blocks over tokens; the last computes the outputs at `positions` alone.

    Args:
      blocks: May be none.
      tokens: float `[batch, length, D]`.
      mask: bool `[batch, length]`.
      positions: int `[batch, m]`.
      training: Whether there is dropout.

    Returns:
      float `[batch, m, D]`.
    """
    if not blocks:
        return tf.gather(tokens, positions, batch_dims=1)
    *inner, last = blocks
    for block in inner:
        tokens = block(tokens, mask, training=training)
    return last(tokens, mask, positions, training=training)
