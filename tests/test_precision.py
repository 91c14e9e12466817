"""Which machines multiply bfloat16, and what `auto` makes of that."""

import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.config import LossConfig
from bivrec_tf.layers import Dense
from bivrec_tf.models.task_loss import TaskLoss
from bivrec_tf.precision import has_bfloat16, multiplies_bfloat16, product_dtype, set_policy


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma\n\nprocessor\t: 1\nflags\t\t: avx2\n",
            False,
        ),
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\n", True),
        # A kernel on two kinds of cores.
        ("Features\t: fp asimd bf16 i8mm\n\nFeatures\t: fp asimd\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        # The name is another instruction's, or not among the flags.
        ("model name\t: bf16 of nowhere\nflags\t\t: avx512_bf16x\n", False),
        ("", False),
    ],
)
def test_processors_with_instructions_for_bfloat16(cpu_info, expected):
    assert has_bfloat16(cpu_info) is expected


def test_auto_is_what_the_machine_multiplies_and_the_others_are_what_they_say():
    try:
        set_policy("auto")
        outputs = {}
        for name in ("auto", "float32", "bfloat16_products"):
            set_policy(name)
            tf_keras.utils.set_random_seed(0)
            outputs[name] = Dense(16)(tf.random.normal([8, 32])).numpy()
    finally:
        set_policy("float32")
    as_native = "bfloat16_products" if multiplies_bfloat16() else "float32"
    assert (outputs["auto"] == outputs[as_native]).all()
    assert (outputs["float32"] != outputs["bfloat16_products"]).any()


def test_the_softmax_of_auto_is_one_of_the_two():
    counts = tf.ones([30], tf.int64).numpy()
    queries, items = tf.random.normal([8, 2, 4]), tf.random.normal([30, 4])
    losses = {
        dtype: float(
            TaskLoss(LossConfig(softmax_dtype=dtype), "logsumexp", counts)(
                queries, items, tf.range(8)
            )
        )
        for dtype in ("auto", "float32", "bfloat16")
    }
    assert losses["auto"] == losses[product_dtype("auto")]
    assert losses["float32"] != losses["bfloat16"]
