"""Cluster attention: tokens compete for interests."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.gaussian_attention import GaussianPool, attend
from bivrec_tf.layers.masking import visible

# The eps of the allocated mean, in tokens. It is one and not tiny: an interest that holds no token
# would otherwise pass the straight-through gradient on divided by eps (`docs/decisions/0002`).
_PRIOR_COUNT = 1.0

# Running sums share one reference, the highest logit of the whole history, and a prefix that lies
# far below it must still be a proper ratio. float32 holds e^-87 to e^88: the highest density is
# e^60, which leaves room for sums, and a prefix keeps its proportions down to e^-80.
_HIGHEST_LOGIT = 60.0
_LOWEST_LOGIT = -80.0


class ClusterAttention(tf_keras.layers.Layer):
    """Allocates every token to interests, and renews each interest from what it was given.

    A token is allocated when it arrives, by the interests as they stood then: with the running
    Gaussian pool `g_kj` of interest `k` over the tokens up to `j`,
    `a_kj = (q_k + g_kj) . (W_K x_j) / sqrt(D)`, and the *interest allocation* is
    `P_kj = softmax_k(a_kj / tau)`: one distribution over interests for every token. Assignment is
    hard, to the `top_n` strongest interests with equal parts, with a straight-through gradient of
    the soft allocation; in training Gumbel noise is added first. At inference there is no noise.
    The renewal of interest `k` at position `t` is
    `(sum_{j<=t} A_kj x_j) / (sum_{j<=t} A_kj + 1)` over the assignment `A`. There is no second
    softmax over tokens.

    The running pools are never formed: `g_kj . y_j` is linear attention, one product of tokens and
    keys that all interests share and one of that with their densities, `O(L^2 (D + K))`. A single
    interest is given every token: nothing of this is computed, and there is no `W_K`.

    Args:
      top_n: Interests that a token is assigned to.
      temperature: tau; lower is more decided.
      **kwargs: Passed to the base class.

    Inputs: `tokens`, float `[batch, length, D]`; `mask`, bool `[batch, length]`; `positions`, int
      `[batch, m]`; `pool`, the `GaussianPool` of the same tokens.
    Outputs: renewals, float `[batch, m, K, D]`; the soft allocation without noise, float32
      `[batch, K, length]`.
    Masking: the allocation is 0 at masked tokens, and sums to 1 over interests at valid ones.

    Example:
      >>> from bivrec_tf.layers import GaussianAttention
      >>> tokens, mask = tf.ones([1, 5, 8]), tf.ones([1, 5], tf.bool)
      >>> positions = tf.constant([[2, 4]])
      >>> pool = GaussianAttention(num_interests=4)(tokens, mask, positions)
      >>> renewals, allocation = ClusterAttention()(tokens, mask, positions, pool)
      >>> renewals.shape, allocation.shape
      (TensorShape([1, 2, 4, 8]), TensorShape([1, 4, 5]))

    Reference: Hu et al., *BiVRec*, arXiv 2402.17334, Intra-View Interest Decomposition;
    `docs/model.md`, section 2.3.
    """

    def __init__(self, top_n: int = 1, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top_n = top_n
        self.temperature = temperature

    def build(self, input_shape):
        dimension = int(input_shape[-1])
        self._key = Dense(dimension, use_bias=False, name="key")
        super().build(input_shape)

    def call(self, tokens, mask, positions, pool: GaussianPool, training=None):
        valid = tf.cast(mask, tf.float32)[:, tf.newaxis, :]
        if pool.query.shape[1] == 1:
            allocation = assignment = valid
        else:
            logits = self._affinity(tokens, mask, pool)
            allocation = tf.nn.softmax(logits / self.temperature, axis=1) * valid
            assignment = self._assign(logits, training) * valid
        seen = visible(mask, positions)[:, :, tf.newaxis]
        given = tf.where(seen, tf.expand_dims(assignment, 1), 0.0)
        shares = given / (tf.reduce_sum(given, axis=-1, keepdims=True) + _PRIOR_COUNT)
        return attend(shares, tokens), allocation

    def _affinity(self, tokens, mask, pool: GaussianPool):
        """Returns `a`, float32 `[batch, K, length]`."""
        key = tf.cast(self._key(tokens), tf.float32)
        density = self._density(pool.log_density, mask)
        # Triangle of (W_K x_j) . x_i, i <= j: the same for all interests.
        product = tf.matmul(key, tf.cast(tokens, tf.float32), transpose_b=True)
        of_pools = tf.matmul(density, tf.linalg.band_part(product, -1, 0), transpose_b=True)
        of_pools = tf.math.divide_no_nan(of_pools, tf.cumsum(density, axis=2))
        of_queries = tf.matmul(pool.query, key, transpose_b=True)
        return (of_pools + of_queries) * tf.math.rsqrt(tf.cast(tf.shape(tokens)[-1], tf.float32))

    def _density(self, log_density, mask):
        valid = mask[:, tf.newaxis, :]
        highest = tf.reduce_max(tf.where(valid, log_density, tf.float32.min), axis=2, keepdims=True)
        # Any constant cancels in the ratio, so it needs no gradient.
        relative = tf.where(valid, log_density - tf.stop_gradient(highest), 0.0) + _HIGHEST_LOGIT
        return tf.exp(tf.maximum(relative, _LOWEST_LOGIT)) * tf.cast(valid, tf.float32)

    def _assign(self, logits, training):
        if training:
            uniform = tf.random.uniform(tf.shape(logits), minval=1e-9, maxval=1.0)
            logits -= tf.math.log(-tf.math.log(uniform))
        soft = tf.nn.softmax(logits / self.temperature, axis=1)
        strongest = tf.math.top_k(tf.transpose(logits, [0, 2, 1]), k=self.top_n).indices
        hard = tf.reduce_sum(tf.one_hot(strongest, tf.shape(logits)[1]), axis=2) / self.top_n
        hard = tf.transpose(hard, [0, 2, 1])
        return soft + tf.stop_gradient(hard - soft)

    def get_config(self):
        return {
            **super().get_config(),
            "top_n": self.top_n,
            "temperature": self.temperature,
        }
