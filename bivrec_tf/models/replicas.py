"""Training on several devices at once."""

import tensorflow as tf


def share_of_replica(wanted: tf.Tensor, per_sequence: int | None) -> tf.Tensor | float:
    """Returns this device's share of the targets of a step: gradients of devices are added up.

    Args:
      wanted: bool `[batch, length]` of `histories.wanted_positions`, on this device.
      per_sequence: Targets drawn of a sequence at most; all when none.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return 1.0
    targets = tf.math.count_nonzero(wanted, axis=1, dtype=tf.int32)
    own = tf.cast(tf.reduce_sum(tf.minimum(targets, per_sequence or tf.int32.max)), tf.float32)
    return tf.math.divide_no_nan(own, replica.all_reduce(tf.distribute.ReduceOp.SUM, own))
