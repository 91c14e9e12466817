"""Building and reading `tf.train.Example`, the one record format between components."""

from collections.abc import Iterable, Sequence

import tensorflow as tf


def set_bytes(example: tf.train.Example, name: str, values: Iterable[bytes]) -> None:
    """Sets a bytes feature; no values make a feature of kind bytes with nothing in it."""
    example.features.feature[name].bytes_list.value[:] = values


def set_integers(example: tf.train.Example, name: str, values: Iterable[int]) -> None:
    """Sets an int64 feature."""
    example.features.feature[name].int64_list.value[:] = values


def set_floats(example: tf.train.Example, name: str, values: Iterable[float]) -> None:
    """Sets a float feature (stored as float32)."""
    example.features.feature[name].float_list.value[:] = values


def set_missing(example: tf.train.Example, name: str) -> None:
    """Sets a feature without a kind: this example has no value for it."""
    example.features.feature[name].Clear()


def get_bytes(example: tf.train.Example, name: str) -> Sequence[bytes]:
    """Returns the values of a bytes feature, none if it is missing."""
    features = example.features.feature
    return features[name].bytes_list.value if name in features else ()


def get_integers(example: tf.train.Example, name: str) -> Sequence[int]:
    """Returns the values of an int64 feature, none if it is missing."""
    features = example.features.feature
    return features[name].int64_list.value if name in features else ()


def get_floats(example: tf.train.Example, name: str) -> Sequence[float]:
    """Returns the values of a float feature, none if it is missing."""
    features = example.features.feature
    return features[name].float_list.value if name in features else ()


def serialize(example: tf.train.Example) -> bytes:
    """Returns the same bytes for the same content, whatever the order of insertion."""
    return example.SerializeToString(deterministic=True)
