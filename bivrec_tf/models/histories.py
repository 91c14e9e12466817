"""Histories as rows of items: compacting, cropping, and cutting out what stood before a target."""

import tensorflow as tf


def compact(rows: tf.Tensor, max_history: int) -> tf.Tensor:
    """Moves the known items of each history to the right, in order, and keeps the most recent.

    Args:
      rows: int `[n, L]`, oldest first; 0 for padding and unknown items, anywhere.
      max_history: Items to keep.

    Returns:
      int `[n, max(1, min(L, max_history))]`, padding on the left.
    """
    order = tf.argsort(tf.cast(rows > 0, tf.int32), axis=1, stable=True)
    rows = tf.gather(rows, order, batch_dims=1)[:, -max_history:]
    # A history without any column still has one position, of padding, to ask for interests at.
    missing = tf.maximum(1 - tf.shape(rows)[1], 0)
    return tf.pad(rows, [[0, 0], [missing, 0]])


def prefixes(rows: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Cuts out the histories that end at given positions.

    Args:
      rows: int `[batch, length]`, padding on the left.
      positions: int `[n]`, flat positions `row * length + t`.

    Returns:
      int `[n, length]`: items `.. t` of the row, padding on the left.
    """
    length = tf.shape(rows)[1]
    row, last = positions // length, positions % length
    source = tf.range(length)[tf.newaxis] - (length - 1 - last)[:, tf.newaxis]
    items = tf.gather(tf.gather(rows, row), tf.maximum(source, 0), batch_dims=1)
    return tf.where(source >= 0, items, 0)


def draw_positions(wanted: tf.Tensor, per_sequence: int | None) -> tf.Tensor:
    """Draws, without replacement, positions to train on.

    Args:
      wanted: bool `[batch, length]`, positions that have a target.
      per_sequence: How many of a sequence at most; all when none.

    Returns:
      int32 `[n]`, flat positions `row * length + t`, in order.
    """
    if per_sequence is not None:
        lottery = tf.where(wanted, tf.random.uniform(tf.shape(wanted)), -1.0)
        limit = tf.minimum(per_sequence, tf.shape(wanted)[1])
        threshold = tf.math.top_k(lottery, k=limit).values[:, -1:]
        wanted &= lottery >= threshold
    return tf.cast(tf.where(tf.reshape(wanted, [-1]))[:, 0], tf.int32)
