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
    `a_kj = softmax_j(w_k . tanh(W (e_j + p_j)))`. The position `j` counts from the oldest item, as
    in the authors' code, so that an item's weight does not depend on the position that asks. With
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
        self._max_history = config.max_history
        self._dropout = Dropout(config.dropout)
        # Four times the width, as in the authors' code.
        self._hidden = Dense(4 * config.dimension, activation="tanh", use_bias=False, name="hidden")
        self._logits = Dense(config.num_interests, use_bias=False, name="logits")

    def build(self, input_shape):
        self._positions = self.add_weight(
            "positions", [self._max_history, int(input_shape[-1])], initializer="zeros"
        )
        super().build(input_shape)

    def call(self, items, mask, positions, training=None):
        items = self._dropout(items, training=training)
        # Counted among valid items: padding on the left moves no position.
        place = tf.maximum(tf.cumsum(tf.cast(mask, tf.int32), axis=1) - 1, 0)
        placed = items + tf.cast(tf.gather(self._positions, place), items.dtype)
        logits = tf.cast(self._logits(self._hidden(placed)), tf.float32)
        logits = tf.transpose(logits, [0, 2, 1])
        seen = visible(mask, positions)[:, :, tf.newaxis]
        weights = masked_softmax(tf.expand_dims(logits, 1), seen)
        allocation = tf.nn.softmax(logits, axis=1) * tf.cast(mask, tf.float32)[:, tf.newaxis]
        return Interests(attend(weights, items), allocation, mask)
