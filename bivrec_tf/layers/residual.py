"""The last projection of a branch that is added to its input."""

from typing import Any

import tf_keras

from bivrec_tf.layers.dense import Dense

# A tenth of the usual spread: at first a block hands its tokens on, and what item vectors already
# say of items reaches the scores (`docs/decisions/0008`).
_INITIAL_VARIANCE = 0.01


def residual_dense(dimension: int, **kwargs: Any) -> Dense:
    """Returns a dense layer whose first values are small; `kwargs` go to it."""
    initializer = tf_keras.initializers.VarianceScaling(_INITIAL_VARIANCE)
    return Dense(dimension, kernel_initializer=initializer, **kwargs)
