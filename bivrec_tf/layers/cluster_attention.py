"""Cluster attention: tokens compete for interests."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.masking import prefix_sum

# The eps of the allocated mean, in tokens. It is one and not tiny: an interest that holds no token
# would otherwise pass the straight-through gradient on divided by eps (`docs/decisions/0002`).
_PRIOR_COUNT = 1.0


class ClusterAttention(tf_keras.layers.Layer):
    """Allocates every token to interests, and renews each interest from what it was given.

    `a_kt = (W_Q g_k) . (W_K x_t) / sqrt(D)`, and the *interest allocation* is
    `P_kt = softmax_k(a_kt / tau)`: one distribution over interests for every token. Assignment is
    hard, to the `top_n` strongest interests with equal parts, with a straight-through gradient of
    the soft allocation; in training Gumbel noise is added first. At inference there is no noise.
    Then `z_k = LayerNorm(g_k + W_O (sum_t A_kt W_V x_t) / (sum_t A_kt + 1))` over the assignment
    `A`, and a feed-forward block with a residual. There is no second softmax over tokens.

    In the causal form a token is allocated when it arrives, by the interests as they stood then,
    and an interest at position `t` is renewed from the tokens up to `t`: running sums again.

    Args:
      top_n: Interests that a token is assigned to.
      temperature: tau; lower is more decided.
      causal: Whether interests come, and go, for every position.
      tokens_per_position: How many consecutive tokens share a position (causal form).
      dropout: Rate inside the feed-forward block, in training.
      **kwargs: Passed to the base class.

    Inputs: `interests`, float `[batch, K, D]`, causal `[batch, length, K, D]`; `tokens`, float
      `[batch, tokens, D]`; `mask`, bool `[batch, tokens]`; `positions`, optional int `[n]`: causal
      form only, the flat positions `row * length + t` whose interests are wanted (the costly last
      steps run for those alone).
    Outputs: interests, float `[batch, K, D]`, causal `[n, K, D]` (all positions in order without
      `positions`); the soft allocation without noise, float32 `[batch, K, tokens]`.
    Masking: the allocation is 0 at masked tokens, and sums to 1 over interests at valid ones.

    Example:
      >>> layer = ClusterAttention()
      >>> interests, allocation = layer(
      ...     tf.ones([1, 4, 8]), tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool))
      >>> allocation.shape
      TensorShape([1, 4, 5])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Intra-View Interest Decomposition;
    `docs/model.md`, sections 2.3 and 3b.
    """

    def __init__(
        self,
        top_n: int = 1,
        temperature: float = 1.0,
        causal: bool = False,
        tokens_per_position: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.top_n = top_n
        self.temperature = temperature
        self.causal = causal
        self.tokens_per_position = tokens_per_position
        self.dropout = dropout
        self._norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self._dropout = tf_keras.layers.Dropout(dropout)

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._query = tf_keras.layers.Dense(dimension, use_bias=False, name="query")
        self._key = tf_keras.layers.Dense(dimension, use_bias=False, name="key")
        self._value = tf_keras.layers.Dense(dimension, use_bias=False, name="value")
        self._output = tf_keras.layers.Dense(dimension, use_bias=False, name="output")
        self._expand = tf_keras.layers.Dense(4 * dimension, activation="gelu", name="expand")
        self._contract = tf_keras.layers.Dense(dimension, name="contract")
        super().build(input_shape)

    def call(self, interests, tokens, mask, positions=None, training=None):
        logits = self._logits(interests, tokens)
        valid = tf.cast(mask, tf.float32)[:, tf.newaxis, :]
        allocation = tf.nn.softmax(logits / self.temperature, axis=1) * valid
        assignment = tf.cast(self._assign(logits, training) * valid, tokens.dtype)
        value = self._value(tokens)
        if self.causal:
            interests, renewal = self._running_means(interests, assignment, value, positions)
        else:
            total = tf.reduce_sum(assignment, axis=2)[..., tf.newaxis]
            renewal = tf.matmul(assignment, value) / (total + _PRIOR_COUNT)
        renewed = self._norm(interests + self._output(renewal))
        hidden = self._dropout(self._expand(renewed), training=training)
        return renewed + self._contract(hidden), allocation

    def _logits(self, interests, tokens):
        query, key = self._query(interests), self._key(tokens)
        scale = tf.math.rsqrt(tf.cast(tf.shape(tokens)[-1], tf.float32))
        if not self.causal:
            return tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32) * scale
        batch, count, dimension = tf.unstack(tf.shape(tokens))
        key = tf.reshape(key, [batch, -1, self.tokens_per_position, dimension])
        logits = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32) * scale
        # [batch, length, K, tokens_per_position] -> [batch, K, tokens]
        by_interest = tf.transpose(logits, [0, 2, 1, 3])
        return tf.reshape(by_interest, [batch, tf.shape(query)[2], count])

    def _assign(self, logits, training):
        if training:
            uniform = tf.random.uniform(tf.shape(logits), minval=1e-9, maxval=1.0)
            logits -= tf.math.log(-tf.math.log(uniform))
        soft = tf.nn.softmax(logits / self.temperature, axis=1)
        strongest = tf.math.top_k(tf.transpose(logits, [0, 2, 1]), k=self.top_n).indices
        hard = tf.reduce_sum(tf.one_hot(strongest, tf.shape(logits)[1]), axis=2) / self.top_n
        hard = tf.transpose(hard, [0, 2, 1])
        return soft + tf.stop_gradient(hard - soft)

    def _running_means(self, interests, assignment, value, positions):
        batch, count, dimension = tf.unstack(tf.shape(value))
        by_position = [batch, count // self.tokens_per_position, self.tokens_per_position]
        value = tf.reshape(tf.cast(value, tf.float32), [*by_position, dimension])
        shares = tf.transpose(tf.cast(assignment, tf.float32), [0, 2, 1])
        shares = tf.reshape(shares, [*by_position, tf.shape(assignment)[1]])
        weighted = prefix_sum(tf.einsum("blsk,blsd->blkd", shares, value))
        total = prefix_sum(tf.reduce_sum(shares, axis=2))[..., tf.newaxis]
        flat = [-1, tf.shape(assignment)[1], dimension]
        mean = tf.reshape(weighted / (total + _PRIOR_COUNT), flat)
        interests = tf.reshape(interests, flat)
        if positions is not None:
            mean, interests = tf.gather(mean, positions), tf.gather(interests, positions)
        return interests, tf.cast(mean, interests.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "top_n": self.top_n,
            "temperature": self.temperature,
            "causal": self.causal,
            "tokens_per_position": self.tokens_per_position,
            "dropout": self.dropout,
        }
