"""The machine that measures: what it is, and how fast it multiplies."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from bivrec_tf.precision import multiplies_bfloat16

_CPU_INFO = Path("/proc/cpuinfo")


def seconds_of(function: Callable, budget: float) -> float:
    """Returns the median time of a call, after three calls that do not count."""
    for _ in range(3):
        function()
    spent: list[float] = []
    while sum(spent) < budget or len(spent) < 5:
        began = time.perf_counter()
        function()
        spent.append(time.perf_counter() - began)
    return float(np.median(spent))


def machine_rate(budget: float, products: int, size: int = 2048) -> float:
    """Returns floating-point operations a second of products of float32 matrices, side by side."""
    lefts = [tf.random.normal([size, size]) for _ in range(products)]
    right = tf.random.normal([size, size])
    run = tf.function(lambda: tf.add_n([tf.reduce_sum(tf.matmul(left, right)) for left in lefts]))
    return products * 2 * size**3 / seconds_of(lambda: run().numpy(), budget)


def describe_machine(threads: int, rate: float) -> dict[str, str | int | float | bool]:
    """Returns what seconds depend on: two machines can be told apart by it, if not two hours.

    Args:
      threads: Threads of an operation; 0 for all cores.
      rate: What `machine_rate` measured in the same run.
    """
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(named, "unknown"),
        "cores": os.cpu_count() or 1,
        "threads": threads or os.cpu_count() or 1,
        "multiplies_bfloat16": multiplies_bfloat16(),
        "gflops_float32": round(rate / 1e9),
    }
