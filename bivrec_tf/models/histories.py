"""Histories as rows of items: compacting, cropping, and drawing positions to train on."""

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


def wanted_positions(sequence: tf.Tensor, is_target: tf.Tensor) -> tf.Tensor:
    """Tells which positions of the history have a next item to predict.

    Args:
      sequence: int `[batch, length]`, 0 for padding.
      is_target: bool `[batch, length]`.

    Returns:
      bool `[batch, length - 1]`.
    """
    return is_target[:, 1:] & (sequence[:, :-1] > 0) & (sequence[:, 1:] > 0)


def draw_positions(wanted: tf.Tensor, per_sequence: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws, without replacement, positions to train on.

    Args:
      wanted: bool `[batch, length]`, positions that have a target.
      per_sequence: How many of a sequence at most; all when none.

    Returns:
      Positions, int32 `[batch, m]`, and which of them have a target, bool `[batch, m]`, with
      `m = min(per_sequence, length)`: a sequence of fewer targets is filled up with others.
    """
    length = tf.shape(wanted)[1]
    if per_sequence is None:
        return tf.broadcast_to(tf.range(length), tf.shape(wanted)), wanted
    lottery = tf.where(wanted, tf.random.uniform(tf.shape(wanted)), -1.0)
    drawn = tf.math.top_k(lottery, k=tf.minimum(per_sequence, length))
    positions = drawn.indices
    if per_sequence == 1:
        # That there are few is known to layers which have a shorter way then.
        positions = tf.ensure_shape(positions, [None, 1])
    return positions, drawn.values >= 0.0
