"""Masked attention arithmetic that holds in every floating dtype."""

import tensorflow as tf


def masked_softmax(logits: tf.Tensor, mask: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Softmax over the entries that `mask` allows; exactly 0 elsewhere.

    A slice without any allowed entry gives zeros, not NaN: masked logits are the dtype's own
    minimum (a fixed -1e9 is infinite in float16), and the result is multiplied by the mask.

    Args:
      logits: float tensor.
      mask: bool, broadcastable to `logits`.
      axis: the axis that sums to 1.

    Returns:
      Weights of the shape and dtype of `logits`.
    """
    masked = tf.where(mask, logits, logits.dtype.min)
    return tf.nn.softmax(masked, axis=axis) * tf.cast(mask, logits.dtype)


def visible(mask: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns which tokens each position may look back at.

    Args:
      mask: bool `[batch, length]`, valid tokens.
      positions: int `[batch, m]`.

    Returns:
      bool `[batch, m, length]`: valid tokens at or before the position.
    """
    before = tf.range(tf.shape(mask)[1]) <= positions[:, :, tf.newaxis]
    return before & mask[:, tf.newaxis, :]
