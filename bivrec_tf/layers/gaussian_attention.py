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


def _first_rates(num_interests: int, max_length: int) -> list[float]:
    """Returns rates whose half-lives part the lengths of histories evenly on a logarithmic scale.

    A single interest forgets half in the root of `max_length` items; of four, for 50 items, they
    do in 1.6, 4.3, 11.5 and 30.7.
    """
    middles = [(index + 0.5) / num_interests for index in range(num_interests)]
    return [math.log(2.0) / max_length**middle for middle in middles]


def _before_softplus(value: float) -> float:
    return math.log(math.expm1(value))


class GaussianPool(NamedTuple):
    """What `GaussianAttention` makes of tokens.

    Attributes:
      pooled: float `[batch, m, K, D]`, attended tokens at the positions asked for.
      log_density: float32 `[batch, K, length]`, the logits of attention.
      query: float32 `[batch, K, D]`, the interests themselves: samples in training, else means.
    """

    pooled: tf.Tensor
    log_density: tf.Tensor
    query: tf.Tensor


class GaussianAttention(tf_keras.layers.Layer):
    """Pools the tokens up to a position into interests, each a Gaussian that forgets at a rate.

    In training the query is a reparameterised sample `q_k = mu_k + sigma_k * eps` (one for a
    history); at inference it is `mu_k`. Attention over the tokens `j <= t` is proportional to the
    Gaussian density, and falls exponentially with age, at a learned rate `r_k` of the interest:
    `w_kj = softmax_j(-1/2 || (q_k - W_K x_j) / sigma_k ||^2 - r_k (t - j))`. The pool is of the
    tokens themselves, so that an interest stands where the items that it holds do. The square is
    expanded into matrix products, and `t` cancels in the softmax: a token's logit does not depend
    on the position that asks.

    Args:
      num_interests: Interests, K.
      max_length: Longest history in items, over which the first rates are spread.
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

    def __init__(
        self, num_interests: int, max_length: int = 50, gaussian: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = num_interests
        self.max_length = max_length
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
        self._mean = self.add_weight(
            "mean",
            [self.num_interests, dimension],
            initializer=tf_keras.initializers.RandomNormal(stddev=1.0),
        )
        if self.gaussian:
            self._raw_scale = self.add_weight(
                "raw_scale",
                [self.num_interests, dimension],
                initializer=tf_keras.initializers.Constant(_before_softplus(_INITIAL_SCALE)),
            )
        rates = _first_rates(self.num_interests, self.max_length)
        self._raw_rate = self.add_weight(
            "raw_rate",
            [self.num_interests],
            initializer=tf_keras.initializers.Constant([_before_softplus(rate) for rate in rates]),
        )
        super().build(input_shape)

    def scale(self) -> tf.Tensor:
        """Returns `sigma`, float32 `[num_interests, dimension]`, positive."""
        return tf.nn.softplus(tf.cast(self._raw_scale, tf.float32))

    def rate(self) -> tf.Tensor:
        """Returns `r`, float32 `[num_interests]`, positive: what an item's logit loses an item."""
        return tf.nn.softplus(tf.cast(self._raw_rate, tf.float32))

    def call(self, tokens, mask, positions, training=None):
        query = self._query(tf.shape(tokens)[0], training)
        log_density = self._log_density(query, self._key(tokens))
        # Counted from the end: padding on the left moves no token.
        age = tf.cast(tf.range(tf.shape(tokens)[1] - 1, -1, -1), tf.float32)
        log_density -= self.rate()[:, tf.newaxis] * age
        weights = masked_softmax(
            tf.expand_dims(log_density, 1), visible(mask, positions)[:, :, tf.newaxis]
        )
        return GaussianPool(attend(weights, tokens), log_density, query)

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
            "max_length": self.max_length,
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
