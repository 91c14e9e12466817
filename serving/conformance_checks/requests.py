"""Requests that any exported recommender answers, made from what its signatures say."""

from collections.abc import Mapping
from typing import Any

from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

DEFAULT_SIGNATURE = "serving_default"

_VALUES: dict[str, Any] = {"k": 3, "id_weight": -1.0, "filter_seen": True}
"""Values of inputs for which zero would be wrong. An unknown item, "", is right everywhere."""

_EXAMPLES = ("examples", "inputs")
"""Inputs that take serialized `tf.train.Example`."""

_FIELDS: dict[int, tuple[str, Any]] = {
    types_pb2.DT_STRING: ("string_val", b""),
    types_pb2.DT_FLOAT: ("float_val", 0.0),
    types_pb2.DT_INT32: ("int_val", 0),
    types_pb2.DT_INT64: ("int64_val", 0),
    types_pb2.DT_BOOL: ("bool_val", False),
}
"""Typed field and zero by dtype: what the inputs of recommenders are made of."""


def can_be_called(signature: meta_graph_pb2.SignatureDef) -> bool:
    """Returns whether `inputs_of` can make all inputs of a signature, from zeros.

    Serialized examples it cannot: what they must hold, a signature does not tell.
    """
    return bool(signature.inputs) and all(
        info.dtype in _FIELDS and not info.tensor_shape.unknown_rank and alias not in _EXAMPLES
        for alias, info in signature.inputs.items()
    )


def inputs_of(signature: meta_graph_pb2.SignatureDef) -> dict[str, tensor_pb2.TensorProto]:
    """Returns inputs with one row each; those that have a default are left out."""
    return {
        alias: tensor(
            info.dtype,
            [1 if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim],
            _VALUES.get(alias),
        )
        for alias, info in signature.inputs.items()
        if alias not in signature.defaults
    }


def tensor(dtype: int, shape: list[int], value: Any = None) -> tensor_pb2.TensorProto:
    """Returns a tensor of one value everywhere, zero or "" unless it is given."""
    field, zero = _FIELDS[dtype]
    proto = tensor_pb2.TensorProto(dtype=dtype)
    count = 1
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
        count *= size
    getattr(proto, field).extend([zero if value is None else value] * count)
    return proto


def single_input_signature(
    signatures: Mapping[str, meta_graph_pb2.SignatureDef],
) -> tuple[str, str, meta_graph_pb2.TensorInfo] | None:
    """Returns name, input and its description of a signature of one input without a default."""
    for name, signature in sorted(signatures.items()):
        if len(signature.inputs) == 1 and not signature.defaults and can_be_called(signature):
            ((alias, info),) = signature.inputs.items()
            if info.tensor_shape.dim:
                return name, alias, info
    return None


def dtype_name(dtype: int) -> str:
    """Returns the name that TensorFlow's messages use, such as `float`."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()
