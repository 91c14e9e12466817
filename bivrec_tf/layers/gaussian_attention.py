"""Gaussian attention: every interest is a distribution in the space of keys."""

import math
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.masking import masked_softmax, visible

# First values. A sample must resemble its mean (sigma well below the spread of the means), or
# training sees little but noise; and keys must be small beside sigma, or the first softmax has
# collapsed onto one token, since log densities grow with the number of dimensions.
_INITIAL_SCALE = 0.5
_INITIAL_KEY_VARIANCE = 0.0025


class GaussianPool(NamedTuple):
    """What `GaussianAttention` makes of tokens.

    Attributes:
      pooled: float `[batch, m, K, D]`, attended values at the positions asked for.
      log_density: float32 `[batch, K, length]`, the logits of attention.
      values: float `[batch, length, D]`.
      query: float32 `[batch, K, D]`, the interests themselves: samples in training, else means.
    """

    pooled: tf.Tensor
    log_density: tf.Tensor
    values: tf.Tensor
    query: tf.Tensor


class GaussianAttention(tf_keras.layers.Layer):
    """Pools the tokens up to a position into interests, each a Gaussian with a learned mean.

    In training the query is a reparameterised sample `q_k = mu_k + sigma_k * eps` (one for a
    history); at inference it is `mu_k`. Attention over the tokens `j <= t` is proportional to the
    Gaussian density, `w_kj = softmax_j(-1/2 || (q_k - W_K x_j) / sigma_k ||^2)`. The square is
    expanded into matrix products. A token's logit does not depend on the position that asks.

    Args:
      num_interests: Interests, K.
      gaussian: Without it, the plain dot product `mu_k . W_K x_j` is the logit: an ablation.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, length, D]`; `mask`, bool `[batch, length]`; `positions`, int
      `[batch, m]`.
    Output: `GaussianPool`.
    Masking: masked tokens weigh exactly nothing; without any valid token `pooled` is 0.

    Example:
      >>> layer = GaussianAttention(num_interests=4)
      >>> layer(tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool), tf.constant([[2, 4]])).pooled.shape
      TensorShape([1, 2, 4, 8])

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Intra-View Interest Decomposition;
    `docs/model.md`, section 2.2.
    """

    def __init__(self, num_interests: int, gaussian: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_interests = num_interests
        self.gaussian = gaussian

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        variance = _INITIAL_KEY_VARIANCE if self.gaussian else 1.0 / dimension
        self._key = Dense(
            dimension,
            use_bias=False,
            kernel_initializer=tf_keras.initializers.VarianceScaling(variance),
            name="key",
        )
        self._value = Dense(dimension, use_bias=False, name="value")
        self._mean = self.add_weight(
            "mean",
            [self.num_interests, dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=1.0),
        )
        if self.gaussian:
            self._raw_scale = self.add_weight(
                "raw_scale",
                [self.num_interests, dimension],
                initializer=tf_keras.initializers.Constant(math.log(math.expm1(_INITIAL_SCALE))),
            )
        super().build(input_shape)

    def scale(self) -> tf.Tensor:
        """Returns `sigma`, float32 `[num_interests, dimension]`, positive."""
        return tf.nn.softplus(tf.cast(self._raw_scale, tf.float32))

    def call(self, tokens, mask, positions, training=None):
        query = self._query(tf.shape(tokens)[0], training)
        log_density = self._log_density(query, self._key(tokens))
        values = self._value(tokens)
        weights = masked_softmax(
            tf.expand_dims(log_density, 1), visible(mask, positions)[:, :, tf.newaxis]
        )
        return GaussianPool(attend(weights, values), log_density, values, query)

    def _query(self, batch, training):
        mean = tf.expand_dims(tf.cast(self._mean, tf.float32), 0)
        if not training or not self.gaussian:
            return tf.repeat(mean, batch, axis=0)
        noise = tf.random.normal([batch, *self._mean.shape])
        return mean + self.scale() * noise

    def _log_density(self, query, key):
        key = tf.cast(key, tf.float32)
        if not self.gaussian:
            return tf.matmul(query, key, transpose_b=True)
        inverse_variance = 1.0 / tf.square(self.scale())
        cross = tf.matmul(query * inverse_variance, key, transpose_b=True)
        square = tf.tensordot(tf.square(key), inverse_variance, [[2], [1]])
        own = tf.reduce_sum(tf.square(query) * inverse_variance, axis=2, keepdims=True)
        return cross - 0.5 * (tf.transpose(square, [0, 2, 1]) + own)

    def get_config(self):
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "gaussian": self.gaussian,
        }


def attend(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Sums values under weights of several interests and positions.

    Args:
      weights: float `[batch, m, K, length]`.
      values: float `[batch, length, D]`.

    Returns:
      float `[batch, m, K, D]`.
    """
    batch, count, _, length = tf.unstack(tf.shape(weights))
    interests, dimension = weights.shape[2], values.shape[2]
    flat = tf.reshape(tf.cast(weights, values.dtype), [batch, count * interests, length])
    return tf.reshape(tf.matmul(flat, values), [batch, count, interests, dimension])
