"""Which machines multiply bfloat16, and what `auto` makes of that."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf import precision
from bivrec_tf.config import LossConfig
from bivrec_tf.layers import Dense
from bivrec_tf.models.task_loss import TaskLoss
from bivrec_tf.precision import has_bfloat16, product_dtype, set_policy


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


@pytest.mark.parametrize(
    ("capabilities", "expected"), [([(8, 0), (9, 0)], True), ([(8, 0), (7, 5)], False)]
)
def test_of_several_gpus_every_one_must_multiply_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: range(len(capabilities)))
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": capabilities[gpu]},
    )
    assert precision.multiplies_bfloat16.__wrapped__() is expected


@pytest.mark.parametrize("native", [False, True])
def test_auto_is_what_the_machine_multiplies(monkeypatch, native):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: native)
    try:
        set_policy("auto")
        outputs = Dense(16)(tf.fill([8, 32], 1.0 + 2**-9)).numpy()
        policy = tf_keras.mixed_precision.global_policy().name
    finally:
        set_policy("float32")
    assert outputs.dtype == "float32"
    assert policy == ("bfloat16_products" if native else "float32")
    assert product_dtype("auto") == ("bfloat16" if native else "float32")
    assert product_dtype("float32") == "float32" and product_dtype("bfloat16") == "bfloat16"


@pytest.mark.parametrize("native", [False, True])
def test_the_softmax_of_auto_rounds_where_the_machine_multiplies_bfloat16(monkeypatch, native):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: native)
    counts = np.ones(30, np.int64)
    queries, items = tf.random.normal([8, 2, 4]), tf.random.normal([30, 4])
    losses = {
        dtype: float(
            TaskLoss(LossConfig(softmax_dtype=dtype), "logsumexp", counts)(
                queries, items, tf.range(8)
            )
        )
        for dtype in ("auto", "float32", "bfloat16")
    }
    assert losses["float32"] != losses["bfloat16"]
    assert losses["auto"] == losses["bfloat16" if native else "float32"]
