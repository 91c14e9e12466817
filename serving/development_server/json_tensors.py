"""Predict's JSON, both ways: the shapes and the refusals of TensorFlow Serving's REST API."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.development_server.status import StatusError, invalid_argument
from serving.development_server.tensors import dtype_name

Inputs: TypeAlias = Mapping[str, meta_graph_pb2.TensorInfo]
Tensors: TypeAlias = Mapping[str, tensor_pb2.TensorProto]

_BASE64_KEY = "b64"
_SHOWN_CHARACTERS = 200
_MAX_RANK = 254
_LARGEST_FLOAT = {
    types_pb2.DT_FLOAT: float(np.finfo(np.float32).max),
    types_pb2.DT_DOUBLE: math.inf,
}
_LARGEST_EXACT_INTEGER = {types_pb2.DT_FLOAT: 2**24 - 1, types_pb2.DT_DOUBLE: 2**53 - 1}
_INTEGERS = {
    types_pb2.DT_INT32: ("int_val", -(2**31), 2**31 - 1),
    types_pb2.DT_INT16: ("int_val", -(2**31), 2**31 - 1),
    types_pb2.DT_INT8: ("int_val", -(2**31), 2**31 - 1),
    types_pb2.DT_UINT8: ("int_val", -(2**31), 2**31 - 1),
    types_pb2.DT_INT64: ("int64_val", -(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: ("uint32_val", 0, 2**32 - 1),
    types_pb2.DT_UINT64: ("uint64_val", 0, 2**64 - 1),
}


def parse(body: bytes) -> dict[str, Any]:
    """Returns the object that a request's body holds.

    Raises:
        StatusError: INVALID_ARGUMENT if it is no JSON, or no object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except UnicodeDecodeError as error:
        raise invalid_argument(
            f"JSON Parse error: Invalid encoding in string. at offset: {error.start}"
        ) from error
    except (RecursionError, ValueError) as error:  # Nested too deep; an integer too long.
        raise invalid_argument(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Returns the signature that a request asks for, "" for the default one.

    Raises:
        StatusError: INVALID_ARGUMENT if it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must "
            f"be a string value."
        )
    return name


def read_inputs(
    document: Mapping[str, Any], inputs: Inputs
) -> tuple[dict[str, tensor_pb2.TensorProto], bool]:
    """Returns the tensors of a request, and whether it is in row format.

    Args:
        document: The request.
        inputs: What the signature takes.

    Raises:
        StatusError: INVALID_ARGUMENT if they do not fit; UNIMPLEMENTED for a dtype that JSON
            cannot carry.
    """
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
            f"'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid_argument(
                f"JSON Value: {shown(document)} Excepting 'instances' to be an list/array"
            )
        if not instances:
            raise invalid_argument(f"JSON Value: {shown(document)} No values in 'instances' array")
        return _read_rows(instances, inputs), True
    if "inputs" in document:
        return _read_columns(document["inputs"], inputs), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Tensors, rows: bool) -> dict[str, Any]:
    """Returns the JSON object of an answer, in the format of the request.

    Raises:
        StatusError: INVALID_ARGUMENT if the outputs have no common first dimension to make rows
            of, or a dtype that JSON cannot carry.
    """
    values = {
        name: _values(proto, as_bytes=name.endswith("_bytes")) for name, proto in outputs.items()
    }
    if not rows:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    size = -1
    for name, proto in sorted(outputs.items()):
        if not proto.tensor_shape.dim:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if size not in (-1, proto.tensor_shape.dim[0].size):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: "
                f"{proto.tensor_shape.dim[0].size} expecting: {size}"
            )
        size = proto.tensor_shape.dim[0].size
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [{name: values[name][row] for name in sorted(values)} for row in range(size)]
    }


def is_base64(value: Any) -> bool:
    """Returns whether a JSON value stands for bytes: `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(_BASE64_KEY), str)


def decode_base64(value: Any) -> bytes:
    """Returns the bytes of such a value.

    Raises:
        StatusError: INVALID_ARGUMENT if it is none.
    """
    if not is_base64(value):
        raise invalid_argument(
            f"JSON Value: {shown(value)} not formatted correctly for base64 data"
        )
    text = value[_BASE64_KEY]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def utf8(text: str) -> bytes:
    r"""Returns the bytes of a JSON string.

    Raises:
        StatusError: INVALID_ARGUMENT for half of a surrogate pair, as in `"\ud800"`.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise invalid_argument(
            "JSON Parse error: The surrogate pair in string is invalid."
        ) from error


def shown(value: Any) -> str:
    """Returns a JSON value for an error, cut to a length that a person reads."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def type_name(value: Any) -> str:
    """Returns the JSON type of a value as TensorFlow Serving's errors name it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
    return names[type(value)]


def _read_rows(instances: list[Any], inputs: Inputs) -> dict[str, tensor_pb2.TensorProto]:
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    named = _is_named(instances[0])
    tensors = {name: tensor_pb2.TensorProto(dtype=info.dtype) for name, info in inputs.items()}
    shapes: dict[str, list[int]] = {}
    for position, element in enumerate(instances):
        if _is_named(element) != named:
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise invalid_argument(
                f"Expecting {expected} but got {got} at item {position} of input list"
            )
        values = element if named else {next(iter(inputs)): element}
        for name, value in values.items():
            where = f"element: {position}" + (f" key: {name}" if named else "")
            try:
                _add_row(name, value, inputs, tensors, shapes)
            except StatusError as error:
                raise invalid_argument(
                    f"Failed to process {where} of 'instances' list. Error: "
                    f"{error.code.name}: {error.message}"
                ) from error
        if set(values) != set(inputs):
            raise invalid_argument(
                f"Failed to process element: {position} of 'instances' list. JSON object: "
                f"{shown(element)} keys must be equal to: {','.join(sorted(inputs))}"
            )
    for name, proto in tensors.items():
        for size in (len(instances), *shapes[name]):
            proto.tensor_shape.dim.add(size=size)
    return tensors


def _add_row(
    name: str,
    value: Any,
    inputs: Inputs,
    tensors: Mapping[str, tensor_pb2.TensorProto],
    shapes: dict[str, list[int]],
) -> None:
    if name not in inputs:
        raise invalid_argument(f"JSON object: does not have named input: {name}")
    shape = _shape(value)
    _fill(value, shape, tensors[name])
    if shapes.setdefault(name, shape) != shape:
        sizes = math.prod(shapes[name]), math.prod(shape)
        if sizes[0] != sizes[1]:
            raise invalid_argument(f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}")
        texts = ("[" + ",".join(map(str, each)) + "]" for each in (shapes[name], shape))
        raise invalid_argument("Expecting shape {} but got: {}".format(*texts))


def _read_columns(columns: Any, inputs: Inputs) -> dict[str, tensor_pb2.TensorProto]:
    if not _is_named(columns):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input "
                "tensors required as per tensorinfo_map"
            )
        columns = {next(iter(inputs)): columns}
    tensors = {}
    for name, info in sorted(inputs.items()):
        if name not in columns:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        proto = tensor_pb2.TensorProto(dtype=info.dtype)
        shape = _shape(columns[name])
        _fill(columns[name], shape, proto)
        for size in shape:
            proto.tensor_shape.dim.add(size=size)
        tensors[name] = proto
    return tensors


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape(value: Any) -> list[int]:
    """Returns the shape that the first values of a nested list tell."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    if len(shape) > _MAX_RANK:
        raise invalid_argument(f"{len(shape)} dimensions, at most {_MAX_RANK}")
    return shape


def _fill(value: Any, shape: Sequence[int], proto: tensor_pb2.TensorProto, level: int = 0) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid_argument(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        _add_value(value, proto)
        return
    if level >= len(shape):
        raise invalid_argument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for element in value:
        _fill(element, shape, proto, level + 1)


def _add_value(value: Any, proto: tensor_pb2.TensorProto) -> None:
    dtype = proto.dtype
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, dict):
            proto.string_val.append(decode_base64(value))
        elif isinstance(value, str):
            proto.string_val.append(utf8(value))
        else:
            raise _wrong_type(value, dtype)
    elif dtype in _LARGEST_FLOAT:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(value, dtype)
        _check_exact(value, dtype)
        field = proto.float_val if dtype == types_pb2.DT_FLOAT else proto.double_val
        field.append(value)
    elif dtype in _INTEGERS:
        field_name, low, high = _INTEGERS[dtype]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong_type(value, dtype)
        getattr(proto, field_name).append(value)
    elif dtype == types_pb2.DT_BOOL:
        if not isinstance(value, bool):
            raise _wrong_type(value, dtype)
        proto.bool_val.append(value)
    else:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shown(value)} to type: {dtype_name(dtype)}",
        )


def _check_exact(value: float, dtype: int) -> None:
    if isinstance(value, int):
        exact = abs(value) <= _LARGEST_EXACT_INTEGER[dtype]
    else:
        exact = not math.isfinite(value) or abs(value) <= _LARGEST_FLOAT[dtype]
    if not exact:
        raise invalid_argument(
            f"Cannot convert JSON value: {shown(value)} to {dtype_name(dtype)} without loss of "
            f"precision."
        )


def _wrong_type(value: Any, dtype: int) -> StatusError:
    return invalid_argument(
        f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: "
        f"{dtype_name(dtype)}"
    )


def _values(proto: tensor_pb2.TensorProto, as_bytes: bool) -> Any:
    """Returns the nested lists of a tensor whose values are in its typed field."""
    dtype = proto.dtype
    flat: list[Any]
    if dtype == types_pb2.DT_STRING:
        if as_bytes:
            flat = [{_BASE64_KEY: base64.b64encode(text).decode()} for text in proto.string_val]
        else:
            flat = [text.decode("utf-8", errors="replace") for text in proto.string_val]
    elif dtype == types_pb2.DT_FLOAT:
        # The shortest decimal that reads back as the same float32, not as its float64 expansion.
        flat = [float(str(value)) for value in np.array(proto.float_val, np.float32)]
    elif dtype == types_pb2.DT_HALF:
        halves = np.array(proto.half_val, np.uint16).view(np.float16)
        flat = [float(str(value)) for value in halves]
    elif dtype == types_pb2.DT_DOUBLE:
        flat = list(proto.double_val)
    elif dtype == types_pb2.DT_BOOL:
        flat = list(proto.bool_val)
    elif dtype in _INTEGERS:
        flat = list(getattr(proto, _INTEGERS[dtype][0]))
    else:
        raise invalid_argument(f"Failed to write JSON value for tensor type: {dtype_name(dtype)}")
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape([dimension.size for dimension in proto.tensor_shape.dim]).tolist()
