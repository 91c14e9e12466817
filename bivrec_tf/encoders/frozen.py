"""Networks as graphs of constants, which TensorFlow can fuse further than those with variables."""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from bivrec_tf.graphs import graph_function


def freeze(
    network: Callable[..., tf.Tensor], *signature: tf.TensorSpec
) -> Callable[..., list[tf.Tensor]]:
    """Returns a network as a graph whose weights are constants.

    Bias and activation then become part of the matrix products and convolutions.

    Args:
        network: a model, or a function of tensors.
        *signature: what it is called with.

    Returns:
        A function of the same tensors; its result is a list of one tensor.
    """
    concrete = graph_function(network).get_concrete_function(*signature)
    return convert_variables_to_constants_v2(concrete)
