"""What layers compute in: the Keras policies that training can ask for."""

import functools
import re
from pathlib import Path

import tensorflow as tf
import tf_keras

AUTO = "auto"
"""bfloat16 in matrix products where the machine has instructions for it, float32 elsewhere."""

_CPU_INFO = Path("/proc/cpuinfo")
# x86's two, and ARM's. Without them a product converts what it reads, and takes longer.
_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
_FIRST_GPU_WITH_BFLOAT16 = (8, 0)


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


@functools.cache
def multiplies_bfloat16() -> bool:
    """Tells whether this machine has instructions for products of bfloat16."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        found = [each.get("compute_capability", (0, 0)) for each in details]
        return all(capability >= _FIRST_GPU_WITH_BFLOAT16 for capability in found)
    return _CPU_INFO.exists() and has_bfloat16(_CPU_INFO.read_text())


def has_bfloat16(cpu_info: str) -> bool:
    """Tells whether every processor that Linux' `/proc/cpuinfo` lists multiplies bfloat16."""
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpu_info, re.MULTILINE)
    return bool(lines) and all(_BFLOAT16_INSTRUCTIONS & set(line.split()) for line in lines)


def product_dtype(wanted: str) -> str:
    """Returns the type of products: `float32` or `bfloat16`, also for `auto`."""
    if wanted == AUTO:
        return "bfloat16" if multiplies_bfloat16() else "float32"
    return wanted


def set_policy(precision: str) -> None:
    """Sets the process's policy, for layers made from now on.

    Args:
      precision: The name of one of Keras' own policies, `bfloat16_products`, or `auto`.
    """
    if precision == AUTO:
        precision = BFloat16Products.NAME if product_dtype(AUTO) == "bfloat16" else "float32"
    own = precision == BFloat16Products.NAME
    tf_keras.mixed_precision.set_global_policy(BFloat16Products() if own else precision)
