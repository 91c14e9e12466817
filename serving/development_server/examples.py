"""Classify, Regress and MultiInference: requests that hold `tf.train.Example`.

The checks, their order and their texts are those of TensorFlow Serving.
"""

from collections.abc import Callable, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from serving.development_server.servable import Servable
from serving.development_server.status import StatusError, invalid_argument

_CLASSIFY = tf.saved_model.CLASSIFY_METHOD_NAME
_REGRESS = tf.saved_model.REGRESS_METHOD_NAME

_INPUTS = tf.saved_model.CLASSIFY_INPUTS
_CLASSES = tf.saved_model.CLASSIFY_OUTPUT_CLASSES
_SCORES = tf.saved_model.CLASSIFY_OUTPUT_SCORES
_OUTPUTS = tf.saved_model.REGRESS_OUTPUTS


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Answers with classes, scores or both for each example.

    Raises:
        StatusError: If the signature is none of classification, or there is no example.
        tf.errors.OpError: If an op of the model fails, for instance on a malformed example.
    """
    signature = _signature(servable, request.model_spec)
    names = _classification_outputs(signature)
    examples = _serialized_examples(request.input)
    outputs = servable.run({signature.inputs[_INPUTS].name: examples}, list(names.values()))
    response = classification_pb2.ClassificationResponse()
    _fill_model_spec(response.model_spec, request.model_spec, servable)
    _fill_classifications(response.result, dict(zip(names, outputs, strict=True)), len(examples))
    return response


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Answers with one value for each example.

    Raises:
        StatusError: If the signature is none of regression, or there is no example.
        tf.errors.OpError: If an op of the model fails, for instance on a malformed example.
    """
    signature = _signature(servable, request.model_spec)
    name = _regression_output(signature)
    examples = _serialized_examples(request.input)
    (values,) = servable.run({signature.inputs[_INPUTS].name: examples}, [name])
    response = regression_pb2.RegressionResponse()
    _fill_model_spec(response.model_spec, request.model_spec, servable)
    _fill_regressions(response.result, values, len(examples))
    return response


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Answers several signatures of one model for the same examples, with one run.

    Raises:
        StatusError: If the tasks do not go together, or as for `classify` and `regress`.
        tf.errors.OpError: If an op of the model fails.
    """
    signatures: dict[str, meta_graph_pb2.SignatureDef] = {}
    wanted: dict[str, dict[str, str]] = {}
    model_name = input_name = ""
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if model_name and task.model_spec.name != model_name:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        model_name = task.model_spec.name
        name = _signature_name(task.model_spec)
        if name in signatures:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        signature = servable.signature_defs.get(name)
        if signature is None:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name == _CLASSIFY:
            wanted[name] = _classification_outputs(signature)
        elif task.method_name == _REGRESS:
            wanted[name] = {_OUTPUTS: _regression_output(signature)}
        else:
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                f"Unsupported signature method_name: {task.method_name}",
            )
        if input_name and signature.inputs[_INPUTS].name != input_name:
            raise invalid_argument("Input tensor must be the same for all Signatures.")
        input_name = signature.inputs[_INPUTS].name
        signatures[name] = signature

    examples = _serialized_examples(request.input)
    fetches = sorted({tensor for outputs in wanted.values() for tensor in outputs.values()})
    values = dict(zip(fetches, servable.run({input_name: examples}, fetches), strict=True))
    response = inference_pb2.MultiInferenceResponse()
    for task in request.tasks:
        result = response.results.add()
        _fill_model_spec(result.model_spec, task.model_spec, servable)
        outputs = {
            key: values[tensor] for key, tensor in wanted[_signature_name(task.model_spec)].items()
        }
        if task.method_name == _CLASSIFY:
            _fill_classifications(result.classification_result, outputs, len(examples))
        else:
            _fill_regressions(result.regression_result, outputs[_OUTPUTS], len(examples))
    return response


def _signature_name(model_spec: model_pb2.ModelSpec) -> str:
    return model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def _signature(servable: Servable, model_spec: model_pb2.ModelSpec) -> meta_graph_pb2.SignatureDef:
    name = _signature_name(model_spec)
    signature = servable.signature_defs.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return signature


def _classification_outputs(signature: meta_graph_pb2.SignatureDef) -> dict[str, str]:
    """Returns the tensors of classes and scores, whichever the signature has."""
    _check_method(signature, "classification", _CLASSIFY)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    _check_input(signature, "classification")
    names = {
        key: signature.outputs[key].name for key in (_CLASSES, _SCORES) if key in signature.outputs
    }
    if not names:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" '
            f'or "{_SCORES}". Signature was: {signature}',
        )
    return names


def _regression_output(signature: meta_graph_pb2.SignatureDef) -> str:
    _check_method(signature, "regression", _REGRESS)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _check_input(signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"No regression outputs found in SignatureDef: {signature}",
        )
    return signature.outputs[_OUTPUTS].name


def _check_method(signature: meta_graph_pb2.SignatureDef, kind: str, method: str) -> None:
    if signature.method_name != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _check_input(signature: meta_graph_pb2.SignatureDef, kind: str) -> None:
    if _INPUTS not in signature.inputs:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"No {kind} inputs found in SignatureDef: {signature}",
        )
    # Nothing below converts what is fed; TensorFlow Serving leaves the refusal to the session.
    if signature.inputs[_INPUTS].dtype != types_pb2.DT_STRING:
        raise invalid_argument(f"the {kind} input takes no serialized examples")


def _serialized_examples(examples: input_pb2.Input) -> np.ndarray:
    """Returns the examples, bytes [n]; where there is a context, it comes before each."""
    kind = examples.WhichOneof("kind")
    context = b""
    listed: Sequence[tf.train.Example] = []
    if kind == "example_list":
        listed = examples.example_list.examples
    elif kind == "example_list_with_context":
        listed = examples.example_list_with_context.examples
        context = examples.example_list_with_context.context.SerializeToString()
    if not listed:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(listed), object)
    # Two messages one after the other parse as one whose later fields replace the earlier.
    array[:] = [context + example.SerializeToString() for example in listed]
    return array


def _fill_model_spec(
    answer: model_pb2.ModelSpec, request: model_pb2.ModelSpec, servable: Servable
) -> None:
    answer.name = request.name
    answer.signature_name = _signature_name(request)
    answer.version.value = servable.version


def _fill_classifications(
    result: classification_pb2.ClassificationResult, outputs: dict[str, np.ndarray], examples: int
) -> None:
    expected: dict[str, tuple[str, Callable[[np.ndarray], bool]]] = {
        _CLASSES: ("DT_STRING", lambda array: array.dtype == object),
        _SCORES: ("DT_FLOAT", lambda array: array.dtype == np.float32),
    }
    for key, array in outputs.items():
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        dtype, fits = expected[key]
        if not fits(array):
            raise invalid_argument(f"Expected {key} Tensor of {dtype}. Got: {array.dtype}")
        if len(array) != examples:
            raise invalid_argument(
                f"Expected {key} output batch size of {examples}. Got: {len(array)}"
            )
    classes, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. "
            f"{scores.shape[1]}"
        )
    for row in range(examples):
        classifications = result.classifications.add()
        for column in range((scores if classes is None else classes).shape[1]):  # type: ignore[union-attr]
            found = classifications.classes.add()
            if classes is not None:
                found.label = classes[row, column].decode("utf-8", errors="replace")
            if scores is not None:
                found.score = scores[row, column]


def _fill_regressions(
    result: regression_pb2.RegressionResult, values: np.ndarray, examples: int
) -> None:
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(values)}"
        )
    if len(values) != examples:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {examples} vs. {len(values)}"
        )
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    for value in values.reshape(-1).tolist():
        result.regressions.add(value=value)


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(str(size) for size in array.shape) + "]"
