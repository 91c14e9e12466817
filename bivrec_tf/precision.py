"""What layers compute in: the Keras policies that training can ask for."""

import tf_keras


class BFloat16Products(tf_keras.mixed_precision.Policy):
    """float32, but for the matrix products of dense layers.

    What a processor gains from bfloat16 is in the products; everything else is slower in it than
    in float32, for which there are instructions. Figures: `docs/decisions/0010`.
    """

    NAME = "bfloat16_products"

    product_dtype = "bfloat16"
    """Of the products of `bivrec_tf.layers.Dense`."""

    def __init__(self) -> None:
        super().__init__("float32")
        self._name = self.NAME


def set_policy(precision: str) -> None:
    """Sets the process's policy, for layers made from now on.

    Args:
      precision: The name of one of Keras' own policies, or `bfloat16_products`.
    """
    own = precision == BFloat16Products.NAME
    tf_keras.mixed_precision.set_global_policy(BFloat16Products() if own else precision)
