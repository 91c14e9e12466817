"""Popularity, the floor: every user is recommended what was interacted with most."""

import tensorflow as tf
import tf_keras

from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import Interests


class Popularity(SequentialRecommender):
    """Scores items by their share of the training interactions; there is nothing to train.

    Arguments are those of `SequentialRecommender`; the id view alone.
    """

    def make_tower(self, view, name):
        """Returns interests that are 1 for everyone."""
        return _One(name=name)

    def item_table(self, view, rows, training=False):
        """Returns shares of the training interactions, float32 `[rows, 1]`."""
        counts = tf.constant(self.catalogue.counts[:rows], tf.float32)
        return (counts / tf.maximum(tf.reduce_sum(counts), 1.0))[:, tf.newaxis]


class _One(tf_keras.layers.Layer):
    def call(self, items, mask, positions, training=None):
        vectors = tf.ones_like(tf.gather(items, positions, batch_dims=1))
        allocation = tf.cast(mask, tf.float32)[:, tf.newaxis]
        return Interests(vectors[:, :, tf.newaxis], allocation, mask)
