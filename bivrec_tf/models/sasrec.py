"""SASRec, the baseline: a causal Transformer over the ids of a history."""

from typing import Any

import tensorflow as tf
import tf_keras

from bivrec_tf.config import ModelConfig
from bivrec_tf.layers import ContextBlock, Dropout, LayerNormalization
from bivrec_tf.layers.context_block import context_at
from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import Interests


class SASRec(SequentialRecommender):
    """Self-attentive sequential recommendation: one vector for a history, at every position.

    As in the paper: item vectors, dropout, causal Transformer blocks, a last norm, and the scores
    of all items by the same item vectors. As is usual today, and stronger: the blocks are
    pre-norm with GELU, positions are a learned bias for every distance, and the loss is the softmax
    over the catalogue (`loss.softmax: full`). `loss.softmax: binary` is the paper's own loss, one
    drawn negative for every position. Of the configuration, `num_interests`, `scales` and the
    parts of the interest modules do not apply.

    Arguments are those of `SequentialRecommender`; one view.

    Reference: Kang and McAuley, *Self-Attentive Sequential Recommendation*, ICDM 2018.
    """

    def make_tower(self, view, name):
        """Returns the Transformer."""
        return TransformerTower(self.config, name=name)


class TransformerTower(tf_keras.layers.Layer):
    """Item vectors to one vector at every position asked for.

    Args:
      config: The architecture.
      **kwargs: Passed to the base class.

    Inputs, outputs: as for `ViewTower`, with a single interest.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._input_norm = LayerNormalization(name="input_norm")
        self._dropout = Dropout(config.dropout)
        self._blocks = [
            ContextBlock(
                config.attention_heads, config.max_history, config.dropout, name=f"context_{n}"
            )
            for n in range(config.context_blocks)
        ]
        self._norm = LayerNormalization(name="norm")

    def call(self, items, mask, positions, training=None):
        tokens = self._dropout(self._input_norm(items), training=training)
        vectors = self._norm(context_at(self._blocks, tokens, mask, positions, training))
        allocation = tf.cast(mask, tf.float32)[:, tf.newaxis]
        return Interests(tf.expand_dims(vectors, 2), allocation, mask)
