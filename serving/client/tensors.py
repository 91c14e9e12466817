"""Tensors as messages: written from and read into plain lists, or arrays of numpy.

Only arrays need numpy, and it is imported when the first one is asked for.
"""

import dataclasses
import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from serving.client.protos import DataType, DataTypeName, TensorProto

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How a data type is stored: numpy's name, the field of values, and `struct`'s letter."""

    name: str
    field: str
    letter: str = ""


_KINDS = {
    "DT_FLOAT": _Kind("float32", "float_val", "f"),
    "DT_DOUBLE": _Kind("float64", "double_val", "d"),
    "DT_INT8": _Kind("int8", "int_val", "b"),
    "DT_INT16": _Kind("int16", "int_val", "h"),
    "DT_INT32": _Kind("int32", "int_val", "i"),
    "DT_INT64": _Kind("int64", "int64_val", "q"),
    "DT_UINT8": _Kind("uint8", "int_val", "B"),
    "DT_UINT16": _Kind("uint16", "int_val", "H"),
    "DT_UINT32": _Kind("uint32", "uint32_val", "I"),
    "DT_UINT64": _Kind("uint64", "uint64_val", "Q"),
    "DT_BOOL": _Kind("bool", "bool_val", "?"),
    "DT_HALF": _Kind("float16", "half_val", "e"),
    "DT_COMPLEX64": _Kind("complex64", "scomplex_val"),
    "DT_COMPLEX128": _Kind("complex128", "dcomplex_val"),
    "DT_STRING": _Kind("string", "string_val"),
}
_NUMBER_BY_NAME = {kind.name: DataType[name].number for name, kind in _KINDS.items()}


def dtype_name(number: int) -> str:
    """Returns a numpy-like name of a data type: `string`, `float32`, `bfloat16` and so on."""
    if number not in DataTypeName or number == 0:
        return "unknown"
    name = DataTypeName[number].name
    return _KINDS[name].name if name in _KINDS else name.removeprefix("DT_").lower()


def scalar(value: float | bool) -> Any:
    """Returns a message for a bool, an int32 or a float32."""
    kind = "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else "float32"
    number = _NUMBER_BY_NAME[kind]
    message = TensorProto(dtype=number)
    message.tensor_shape.SetInParent()
    getattr(message, _KINDS[DataTypeName[number].name].field).append(value)
    return message


def strings(values: Sequence[str], shape: Sequence[int]) -> Any:
    """Returns a message for a tensor of strings.

    Args:
        values: In row-major order.
        shape: Their product is the number of values.
    """
    message = TensorProto(dtype=_NUMBER_BY_NAME["string"])
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    message.string_val.extend(value.encode() for value in values)
    return message


def from_array(values: "npt.ArrayLike") -> Any:
    """Returns a message for an array or nested lists.

    Python floats become float32, and Python ints int32 if they fit; an array keeps its dtype.

    Raises:
        TypeError: If it holds what no tensor can.
        ValueError: If it is ragged.
    """
    np = _numpy()
    array = np.asarray(values)
    if not isinstance(values, np.ndarray | np.generic):
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        elif array.dtype == np.int64 and np.array_equal(array, array.astype(np.int32)):
            array = array.astype(np.int32)
        elif array.dtype.kind in "SU":
            # Numpy's own strings lose zero bytes at the end, which a serialised message may have.
            array = np.asarray(values, dtype=object)
    name = "string" if array.dtype.kind in "SUO" else array.dtype.name
    if name not in _NUMBER_BY_NAME:
        raise TypeError(f"no tensor has the dtype {name}")
    message = TensorProto(dtype=_NUMBER_BY_NAME[name])
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    if name == "string":
        message.string_val.extend(_encoded(value) for value in array.flat)
    elif array.size:
        message.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return message


def _numpy() -> Any:
    try:
        import numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "predict() takes and gives arrays, and needs numpy: pip install numpy. The other "
            "methods of the client do without."
        ) from error
    return numpy


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"{value!r} is neither str nor bytes")


def shape_of(message: Any) -> tuple[int, ...]:
    """Returns the shape of a tensor."""
    return tuple(dimension.size for dimension in message.tensor_shape.dim)


def to_list(message: Any) -> Any:
    """Returns the values as nested lists, or the bare value of a scalar; strings as bytes.

    Raises:
        ValueError: If the message has a data type that is none of numpy's, or too few bytes.
    """
    values = _flat(message, _kind(message))
    shape = shape_of(message)
    return _nested(values, shape) if shape else values[0]


def to_array(message: Any) -> "np.ndarray":
    """Returns the values as an array; strings as an object array of bytes, bfloat16 as float32.

    Raises:
        ValueError: If the message has a data type that is none of numpy's, or too few bytes.
    """
    np = _numpy()
    if message.dtype == DataType["DT_BFLOAT16"].number:
        if message.tensor_content:
            bits = np.frombuffer(message.tensor_content, "<u2")
        else:
            bits = np.asarray(_filled(list(message.half_val), message, 0), np.uint16)
        return (bits.astype(np.uint32) << 16).view(np.float32).reshape(shape_of(message))
    kind = _kind(message)
    shape = shape_of(message)
    if kind.name == "string":
        array = np.empty(math.prod(shape), object)
        array[:] = _flat(message, kind)
        return array.reshape(shape)
    dtype = np.dtype(kind.name)
    if message.tensor_content:
        little_endian = np.frombuffer(message.tensor_content, dtype.newbyteorder("<"))
        return little_endian.astype(dtype).reshape(shape)
    stored = list(getattr(message, kind.field))
    if kind.name == "float16":
        array = np.asarray(_filled(stored, message, 0), np.uint16).view(np.float16)
    elif dtype.kind == "c":
        # Real and imaginary parts take turns. Not by arithmetic: 1j times infinity is no number.
        values = np.asarray(stored, np.float64).view(np.complex128)
        array = np.asarray(_filled(list(values), message, 0), dtype)
    else:
        array = np.asarray(_filled(stored, message, 0), dtype)
    return array.reshape(shape)


def _kind(message: Any) -> _Kind:
    name = DataTypeName[message.dtype].name if message.dtype in DataTypeName else "unknown"
    if name not in _KINDS:
        raise ValueError(f"tensors of type {name} cannot be read")
    return _KINDS[name]


def _flat(message: Any, kind: _Kind) -> list[Any]:
    if message.tensor_content and kind.letter:
        layout = f"<{math.prod(shape_of(message))}{kind.letter}"
        if struct.calcsize(layout) != len(message.tensor_content):
            raise ValueError("a tensor holds another number of bytes than its shape says")
        return list(struct.unpack(layout, message.tensor_content))
    if kind.name == "string":
        if message.tensor_content:
            raise ValueError("tensors of strings in tensor_content cannot be read")
        return _filled(list(message.string_val), message, b"")
    if kind.letter in ("", "e"):
        return to_array(message).ravel().tolist()
    return _filled(list(getattr(message, kind.field)), message, 0)


def _filled(stored: list[Any], message: Any, zero: Any) -> list[Any]:
    """Returns one value for each element: the last one stored stands for all after it."""
    count = math.prod(shape_of(message))
    if len(stored) > count:
        raise ValueError("a tensor holds more values than its shape says")
    return stored + (stored[-1:] or [zero]) * (count - len(stored))


def _nested(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return values
    stride = math.prod(shape[1:])
    return [
        _nested(values[row * stride : (row + 1) * stride], shape[1:]) for row in range(shape[0])
    ]
