"""Tensors in and out of `tensorflow.TensorProto`, with nothing in a message taken on trust."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.development_server.status import invalid_argument

_VALUE_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
    types_pb2.DT_COMPLEX64: "scomplex_val",
    types_pb2.DT_COMPLEX128: "dcomplex_val",
}
"""The typed field of `TensorProto` that holds the values, by dtype."""

_HALF_TYPES = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
_COMPLEX_TYPES = (types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128)

_PLAIN_TYPES: dict[int, type] = {
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_BOOL: np.bool_,
}
"""The dtypes of numbers whose typed field holds just what numpy takes."""

_STRING_BYTES = 24
"""What a string tensor takes for an element before any character."""

_MAX_DIMENSIONS = 254
"""TensorFlow's own limit."""


def dtype_name(dtype: int) -> str:
    """Returns the name that TensorFlow's C++ messages use, such as `float` or `int64`."""
    try:
        return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()
    except ValueError:
        return f"unknown dtype enum {dtype}"


def claimed_bytes(alias: str, proto: tensor_pb2.TensorProto) -> int:
    """Returns how much memory a message asks for, without allocating any of it.

    A message of a few bytes may claim any shape, since a tensor of equal values is sent as one.
    Zero dimensions count as one: the others must not be absurd even if there is no element.

    Args:
        alias: Name of the input, for the error.
        proto: The message; its dtype must be known.

    Raises:
        StatusError: INVALID_ARGUMENT, if the shape is not one that a tensor can have.
    """
    dimensions = [dimension.size for dimension in proto.tensor_shape.dim]
    if len(dimensions) > _MAX_DIMENSIONS:
        raise _parsing_error(alias, f"{len(dimensions)} dimensions, at most {_MAX_DIMENSIONS}")
    if any(size < 0 for size in dimensions):
        raise _parsing_error(alias, f"negative dimension in shape {dimensions}")
    return math.prod(max(size, 1) for size in dimensions) * _element_bytes(proto.dtype)


def decode(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Returns the array of a message; strings as an object array of bytes.

    As everywhere in TensorFlow, the last value stands for those that are left out (a tensor of
    equal values is sent as one value), and no value at all for zeros or empty strings.

    Args:
        alias: Name of the input, for the error.
        proto: The message; `claimed_bytes` must have been checked.

    Raises:
        StatusError: INVALID_ARGUMENT, if the values do not agree with dtype and shape.
    """
    field = _VALUE_FIELDS.get(proto.dtype)
    if field is None:
        raise _parsing_error(alias, f"dtype {dtype_name(proto.dtype)} is not supported")
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    elements = math.prod(shape)
    sent = getattr(proto, field)
    values = len(sent) // (2 if proto.dtype in _COMPLEX_TYPES else 1)
    if values > elements:
        raise _parsing_error(alias, f"{values} values for a shape of {elements} elements")
    try:
        if proto.dtype == types_pb2.DT_STRING and not proto.tensor_content:
            return _strings(list(sent), elements).reshape(shape)
        if values == elements and not proto.tensor_content and proto.dtype in _PLAIN_TYPES:
            return np.array(sent, _PLAIN_TYPES[proto.dtype]).reshape(shape)
        # Not by an op: TensorFlow's eager ops lose the memory of their inputs when they fail.
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError) as error:
        raise _parsing_error(alias, "the values do not agree with dtype and shape") from error


def encode(array: np.ndarray, dtype: int, proto: tensor_pb2.TensorProto) -> None:
    """Writes `array` into an empty message, its values in the typed field (`float_val`, ...).

    Args:
        array: Any shape; strings as an object array of bytes.
        dtype: The `DataType` of the array; numpy has no string dtype of its own.
        proto: Where to write.

    Raises:
        TypeError: If values of this dtype cannot be sent (a resource, for instance).
    """
    field = _VALUE_FIELDS.get(dtype)
    if field is None:
        raise TypeError(f"an output of dtype {dtype_name(dtype)} cannot be sent")
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.reshape(-1)
    if dtype in _HALF_TYPES:
        flat = flat.view(np.uint16)
    elif dtype in _COMPLEX_TYPES:
        flat = flat.view(np.float32 if dtype == types_pb2.DT_COMPLEX64 else np.float64)
    getattr(proto, field).extend(flat.tolist())


def _strings(values: list[bytes], elements: int) -> np.ndarray:
    values += [values[-1] if values else b""] * (elements - len(values))
    # Into an array that is there: made from the list, numpy would look into the strings.
    array = np.empty(elements, object)
    array[:] = values
    return array


def _element_bytes(dtype: int) -> int:
    return _STRING_BYTES if dtype == types_pb2.DT_STRING else tf.dtypes.as_dtype(dtype).size


def _parsing_error(alias: str, reason: str) -> Exception:
    return invalid_argument(f"tensor parsing error: {alias}: {reason}")
