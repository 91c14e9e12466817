"""Gaussian attention: every interest is a distribution in the space of keys."""

import math
from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.masking import masked_softmax, prefix_sum

# Running sums share one reference, the highest logit of the whole history, and a prefix that lies
# far below it must still be a proper ratio. float32 holds e^-87 to e^88: the highest density is
# e^60, which leaves room for sums, and a prefix keeps its proportions down to e^-80.
_HIGHEST_LOGIT = 60.0
_LOWEST_LOGIT = -80.0

# First values. A sample must resemble its mean (sigma well below the spread of the means), or
# training sees little but noise; and keys must be small beside sigma, or the first softmax has
# collapsed onto one token, since log densities grow with the number of dimensions.
_INITIAL_SCALE = 0.5
_INITIAL_KEY_VARIANCE = 0.0025


class GaussianAttention(tf_keras.layers.Layer):
    """Pools tokens into interests, each a Gaussian with a learned mean and diagonal scale.

    In training the query is a reparameterised sample `q_k = mu_k + sigma_k * eps`; at inference
    it is `mu_k`. Attention over tokens is proportional to the Gaussian density,
    `w_kt = softmax_t(-1/2 || (q_k - W_K x_t) / sigma_k ||^2)`, and
    `g_k = LayerNorm(q_k + W_O sum_t w_kt W_V x_t)`. The square is expanded into matrix products;
    the term without `t` cancels in the softmax and is left out.

    In the causal form the softmax at position `t` runs over the tokens up to `t`. A token's logit
    does not depend on the position that asks, so both sums of the ratio are running sums.

    Args:
      num_interests: Interests, K.
      causal: Whether to give interests at every position.
      tokens_per_position: How many consecutive tokens share a position (causal form).
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, tokens, dimension]`; `mask`, bool `[batch, tokens]`.
    Output shape: float `[batch, num_interests, dimension]`, in the causal form
      `[batch, length, num_interests, dimension]` with `length = tokens / tokens_per_position`.
    Masking: masked tokens weigh exactly nothing; without any valid token `g_k = LayerNorm(q_k)`.

    Example:
      >>> layer = GaussianAttention(num_interests=4)
      >>> layer(tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool)).shape
      TensorShape([1, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Intra-View Interest Decomposition;
    `docs/model.md`, sections 2.2 and 3b.
    """

    def __init__(
        self,
        num_interests: int,
        causal: bool = False,
        tokens_per_position: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = num_interests
        self.causal = causal
        self.tokens_per_position = tokens_per_position
        self._norm = tf_keras.layers.LayerNormalization(epsilon=1e-6, name="norm")

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._key = tf_keras.layers.Dense(
            dimension,
            use_bias=False,
            kernel_initializer=tf_keras.initializers.VarianceScaling(_INITIAL_KEY_VARIANCE),
            name="key",
        )
        self._value = tf_keras.layers.Dense(dimension, use_bias=False, name="value")
        self._output = tf_keras.layers.Dense(dimension, use_bias=False, name="output")
        self._mean = self.add_weight(
            "mean",
            [self.num_interests, dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=1.0),
        )
        self._raw_scale = self.add_weight(
            "raw_scale",
            [self.num_interests, dimension],
            initializer=tf_keras.initializers.Constant(math.log(math.expm1(_INITIAL_SCALE))),
        )
        super().build(input_shape)

    def scale(self) -> tf.Tensor:
        """Returns `sigma`, float32 `[num_interests, dimension]`, positive."""
        return tf.nn.softplus(tf.cast(self._raw_scale, tf.float32))

    def call(self, tokens, mask, training=None):
        query = self._query(tf.shape(tokens)[0], training)
        logits = self._log_density(query, self._key(tokens))
        value = self._value(tokens)
        pool = self._pool_prefixes if self.causal else self._pool
        pooled = pool(logits, value, mask)
        query = tf.cast(query, tokens.dtype)
        if self.causal:
            query = query[:, tf.newaxis]
        return self._norm(query + self._output(pooled))

    def _query(self, batch, training):
        mean = tf.cast(self._mean, tf.float32)[tf.newaxis]
        if not training:
            return tf.repeat(mean, batch, axis=0)
        noise = tf.random.normal([batch, *self._mean.shape])
        return mean + self.scale() * noise

    def _log_density(self, query, key):
        """Log density up to a constant of the tokens: float32 `[batch, tokens, interests]`."""
        key = tf.cast(key, tf.float32)
        inverse_variance = 1.0 / tf.square(self.scale())
        cross = tf.matmul(key, query * inverse_variance, transpose_b=True)
        square = tf.tensordot(tf.square(key), inverse_variance, [[2], [1]])
        return cross - 0.5 * square

    def _pool(self, logits, value, mask):
        weights = masked_softmax(logits, mask[..., tf.newaxis], axis=1)
        return tf.matmul(tf.cast(weights, value.dtype), value, transpose_a=True)

    def _pool_prefixes(self, logits, value, mask):
        valid = mask[..., tf.newaxis]
        highest = tf.reduce_max(tf.where(valid, logits, logits.dtype.min), axis=1, keepdims=True)
        # Any constant cancels in the ratio, so it needs no gradient.
        relative = tf.where(valid, logits - tf.stop_gradient(highest), 0.0) + _HIGHEST_LOGIT
        density = tf.exp(tf.maximum(relative, _LOWEST_LOGIT)) * tf.cast(valid, tf.float32)
        batch, count, dimension = tf.unstack(tf.shape(value))
        by_position = [batch, count // self.tokens_per_position, self.tokens_per_position]
        density = tf.reshape(density, [*by_position, self.num_interests])
        value_32 = tf.reshape(tf.cast(value, tf.float32), [*by_position, dimension])
        weighted = prefix_sum(tf.einsum("blsk,blsd->blkd", density, value_32))
        total = prefix_sum(tf.reduce_sum(density, axis=2))[..., tf.newaxis]
        return tf.cast(tf.math.divide_no_nan(weighted, total), value.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "causal": self.causal,
            "tokens_per_position": self.tokens_per_position,
        }
