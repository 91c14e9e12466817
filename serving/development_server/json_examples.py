"""The JSON of Classify and Regress, both ways, as TensorFlow Serving's REST API has it."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.development_server.json_tensors import (
    decode_base64,
    is_base64,
    shown,
    type_name,
    utf8,
)
from serving.development_server.status import StatusError, invalid_argument

_LARGEST_FLOAT = 3.4028234663852886e38


def read_examples(document: Mapping[str, Any], answer: input_pb2.Input) -> None:
    """Fills in the examples of a request, and their common context if it has one.

    Raises:
        StatusError: INVALID_ARGUMENT if they are no examples.
    """
    listed = answer.example_list
    if "context" in document:
        listed = answer.example_list_with_context
        _read_example(document["context"], listed.context)
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected "
            f"and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid_argument(
            f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid_argument(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    for example in examples:
        _read_example(example, listed.examples.add())


def write_classifications(result: classification_pb2.ClassificationResult) -> dict[str, Any]:
    """Returns `[label, score]` for every class of every example."""
    return {
        "results": [
            [[found.label, _short(found.score)] for found in classifications.classes]
            for classifications in result.classifications
        ]
    }


def write_regressions(result: regression_pb2.RegressionResult) -> dict[str, Any]:
    """Returns the value of every example."""
    return {"results": [_short(regression.value) for regression in result.regressions]}


def _short(value: float) -> float:
    return float(str(tf.float32.as_numpy_dtype(value)))


def _read_example(value: Any, example: tf.train.Example) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    for name, content in value.items():
        utf8(name)
        feature = example.features.feature[name]
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)


def _add(value: Any, name: str, feature: tf.train.Feature) -> None:
    if isinstance(value, bool):
        _list_of("int64_list", name, feature).append(int(value))
    elif isinstance(value, str):
        _list_of("bytes_list", name, feature).append(utf8(value))
    elif is_base64(value):
        _list_of("bytes_list", name, feature).append(decode_base64(value))
    elif isinstance(value, int):
        values = _list_of("int64_list", name, feature)
        if not -(2**63) <= value < 2**63:
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        values.append(value)
    elif isinstance(value, float):
        values = _list_of("float_list", name, feature)
        if math.isfinite(value) and abs(value) > _LARGEST_FLOAT:
            raise invalid_argument(
                f"Cannot convert JSON value: {shown(value)} to float without loss of precision."
            )
        values.append(value)
    else:
        raise invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {type_name(value)}"
        )


def _list_of(kind: str, name: str, feature: tf.train.Feature) -> Any:
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise _mixed(name, present)
    return getattr(feature, kind).value


def _mixed(name: str, kind: str) -> StatusError:
    return invalid_argument(
        f"Unexpected element type in feature: {name} expecting type: {kind.removesuffix('_list')}"
    )
