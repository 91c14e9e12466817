"""ComiRec-SA, the baseline of several interests: self-attentive pooling."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.config import ModelConfig
from bivrec_tf.layers import Dropout
from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.gaussian_attention import attend
from bivrec_tf.layers.masking import masked_softmax, visible
from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import Interests


class ComiRecSA(SequentialRecommender):
    """Controllable multi-interest recommendation, with self-attentive extraction.

    Interest `k` of the history up to `t` is `sum_{j<=t} a_kj e_j` with
    `a_kj = softmax_j(w_k . tanh(W (e_j + p_{t-j})))`, without the position `p` here: a distance
    differs for every position that looks back, and every position is trained on at once. With
    `readout: target`, as in the paper, training asks the interest that scores the target highest;
    serving takes the maximum. Of the configuration, `scales`, `context_blocks` and the parts of
    the interest modules do not apply.

    Arguments are those of `SequentialRecommender`; one view.

    Reference: Cen et al., *Controllable Multi-Interest Framework for Recommendation*, KDD 2020.
    """

    def make_tower(self, view, name):
        """Returns the pooling."""
        return SelfAttentivePooling(self.config, name=name)


class SelfAttentivePooling(tf_keras.layers.Layer):
    """Item vectors to K interests at every position asked for.

    Args:
      config: The architecture.
      **kwargs: Passed to the base class.

    Inputs, outputs: as for `ViewTower`.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._dropout = Dropout(config.dropout)
        # Four times the width, as in the authors' code.
        self._hidden = Dense(4 * config.dimension, activation="tanh", use_bias=False, name="hidden")
        self._logits = Dense(config.num_interests, use_bias=False, name="logits")

    def call(self, items, mask, positions, training=None):
        items = self._dropout(items, training=training)
        logits = tf.cast(self._logits(self._hidden(items)), tf.float32)
        logits = tf.transpose(logits, [0, 2, 1])
        seen = visible(mask, positions)[:, :, tf.newaxis]
        weights = masked_softmax(tf.expand_dims(logits, 1), seen)
        allocation = tf.nn.softmax(logits, axis=1) * tf.cast(mask, tf.float32)[:, tf.newaxis]
        return Interests(attend(weights, items), allocation, mask)
