"""The item vectors of one view, as an index keeps them."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import tensorflow as tf

TableDtype = Literal["float32", "float16", "int8"]
"""float32: as trained; float16: half the memory; int8: a quarter, one scale for every item."""

_LARGEST_INT8 = 127.0


class ItemTable(tf.Module):
    """Item vectors that take a half or a quarter of float32's memory, if so wanted.

    A method reads the variables whole, and once: a gather from a resource variable itself makes
    TensorFlow copy all of it in every later read.

    Args:
      vectors: float `[rows, D]`.
      dtype: What they are kept in. int8 rounds a vector to 127 steps of its greatest value.

    Raises:
      ValueError: There is no such dtype.

    Example:
      >>> table = ItemTable(tf.constant([[1.0, -2.0], [0.0, 0.5]]), dtype="int8")
      >>> table.gather(tf.constant([1])).numpy().round(2).tolist()
      [[0.0, 0.5]]

    Reference: `docs/serving.md`, large catalogues.
    """

    def __init__(self, vectors: tf.Tensor, dtype: TableDtype = "float32") -> None:
        super().__init__()
        if dtype not in get_args(TableDtype):
            raise ValueError(f"dtype of an item table: expected float32, float16 or int8: {dtype}")
        self.dtype = dtype
        stored = _quantised(tf.cast(vectors, tf.float32), dtype)
        self.values = tf.Variable(stored.values, trainable=False)
        self.scales = None if stored.scales is None else tf.Variable(stored.scales, trainable=False)

    def assign(self, vectors: tf.Tensor) -> None:
        """Replaces all vectors, float `[rows, D]`."""
        stored = _quantised(tf.cast(vectors, tf.float32), self.dtype)
        self.values.assign(stored.values)
        if self.scales is not None:
            self.scales.assign(stored.scales)

    def variables_by_name(self, name: str) -> dict[str, tf.Variable]:
        """Returns what it holds, for a checkpoint; `from_variables` reads it."""
        named = {name: self.values}
        return named if self.scales is None else {**named, f"{name}_scales": self.scales}

    @staticmethod
    def from_variables(found: dict[str, np.ndarray], name: str) -> np.ndarray:
        """Returns float32 `[rows, D]` from the values of `variables_by_name`."""
        scales = found.get(f"{name}_scales")
        values = found[name].astype(np.float32)
        return values if scales is None else values * scales[:, np.newaxis]

    def read(self) -> "StoredVectors":
        """Reads the variables: what a function computes with."""
        scales = None if self.scales is None else self.scales.value()
        return StoredVectors(self.values.value(), scales)

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of rows `[...]`, float32 `[..., D]`."""
        return self.read().gather(rows)


class StoredVectors(NamedTuple):
    """Item vectors as they are kept.

    Attributes:
      values: `[rows, D]`.
      scales: float32 `[rows]`, what an item's values are multiplied with; none for 1.
    """

    values: tf.Tensor
    scales: tf.Tensor | None

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the vectors of rows `[...]`, float32 `[..., D]`."""
        values = tf.cast(tf.gather(self.values, rows), tf.float32)
        return values if self.scales is None else values * tf.gather(self.scales, rows)[..., None]

    def block(self, start: tf.Tensor | int, stop: tf.Tensor | int) -> tf.Tensor:
        """Returns the vectors from row `start` to before `stop`, float32."""
        values = tf.cast(self.values[start:stop], tf.float32)
        return values if self.scales is None else values * self.scales[start:stop, tf.newaxis]


Table: TypeAlias = tf.Tensor | ItemTable
"""Item vectors `[rows, D]`, as a function computed them or as an index keeps them."""


def vectors_of(table: Table, rows: tf.Tensor) -> tf.Tensor:
    """Returns the vectors of rows `[...]`, float `[..., D]`."""
    return table.gather(rows) if isinstance(table, ItemTable) else tf.gather(table, rows)


def _quantised(vectors: tf.Tensor, dtype: TableDtype) -> StoredVectors:
    if dtype != "int8":
        return StoredVectors(tf.cast(vectors, dtype), None)
    largest = tf.reduce_max(tf.abs(vectors), axis=1)
    scales = tf.where(largest > 0, largest, 1.0) / _LARGEST_INT8
    return StoredVectors(tf.cast(tf.round(vectors / scales[:, tf.newaxis]), tf.int8), scales)
