"""A `PredictRequest`, checked against a signature and answered.

The checks, their order and their texts are those of TensorFlow Serving.
"""

from collections.abc import Collection, Mapping

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.development_server import tensors
from serving.development_server.servable import Servable
from serving.development_server.status import StatusError, invalid_argument

_METHODS = (
    tf.saved_model.PREDICT_METHOD_NAME,
    tf.saved_model.CLASSIFY_METHOD_NAME,
    tf.saved_model.REGRESS_METHOD_NAME,
)


def predict(
    servable: Servable, request: predict_pb2.PredictRequest, max_input_bytes: int
) -> predict_pb2.PredictResponse:
    """Answers a request with a loaded version.

    Args:
        servable: The version that answers.
        request: What the client sent; nothing in it is trusted.
        max_input_bytes: How much memory all inputs together may take.

    Returns:
        The outputs asked for (all, without a filter), in typed fields, and the version.

    Raises:
        StatusError: FAILED_PRECONDITION for an unknown signature, INVALID_ARGUMENT for inputs
            or an output filter that do not fit it.
        tf.errors.OpError: If an op of the model fails.
    """
    signature_name = (
        request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    )
    signature = servable.signature_defs.get(signature_name)
    if signature is None or not servable.can_run(signature_name):
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{signature_name}" not found.',
        )
    if signature.method_name not in _METHODS:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{', '.join(_METHODS)}}}. "
            f"Was: {signature.method_name}",
        )
    protos = _select_inputs(signature, request.inputs)
    output_names = _select_outputs(signature, request.output_filter)
    inputs = _decode_inputs(signature, protos, max_input_bytes)
    outputs = servable.run(
        {signature.inputs[alias].name: array for alias, array in inputs.items()},
        [signature.outputs[name].name for name in output_names],
    )

    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = signature_name
    for name, array in zip(output_names, outputs, strict=True):
        tensors.encode(array, signature.outputs[name].dtype, response.outputs[name])
    return response


def _select_inputs(
    signature: meta_graph_pb2.SignatureDef, sent: Mapping[str, tensor_pb2.TensorProto]
) -> dict[str, tensor_pb2.TensorProto]:
    """Returns one message for each input: the one that was sent, or the signature's default."""
    if len(sent) > len(signature.inputs) or (
        len(sent) < len(signature.inputs) and not signature.defaults
    ):
        extra = set(sent) - set(signature.inputs)
        missing = set(signature.inputs) - set(sent)
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(signature.inputs)} "
            f"len({_braces(sent)}) != len({_braces(signature.inputs)}). "
            f"Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}."
        )
    selected = {}
    for alias in sorted(signature.inputs):
        if alias in sent:
            selected[alias] = sent[alias]
        elif alias in signature.defaults:
            selected[alias] = signature.defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not "
                f"found in request and no default value provided. Inputs expected to be in the "
                f"request {_braces(sent)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
    if not set(sent) <= set(selected):
        used = sorted(set(sent) & set(selected))
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, "
            f"request input: {','.join(sorted(sent))}"
        )
    return selected


def _select_outputs(
    signature: meta_graph_pb2.SignatureDef, output_filter: Collection[str]
) -> list[str]:
    seen = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {_braces(signature.outputs)}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)
    return list(output_filter) or sorted(signature.outputs)


def _decode_inputs(
    signature: meta_graph_pb2.SignatureDef,
    protos: Mapping[str, tensor_pb2.TensorProto],
    max_input_bytes: int,
) -> dict[str, np.ndarray]:
    total_bytes = 0
    # The error gives the argument's number, which follows the order of the tensors' names.
    by_tensor_name = sorted(protos, key=lambda alias: signature.inputs[alias].name)
    for position, alias in enumerate(by_tensor_name):
        expected, provided = signature.inputs[alias].dtype, protos[alias].dtype
        if provided == types_pb2.DT_INVALID or provided not in types_pb2.DataType.values():
            raise invalid_argument(f"tensor parsing error: {alias}: no valid dtype")
        if provided != expected:
            raise invalid_argument(
                f"Expects arg[{position}] to be {tensors.dtype_name(expected)} but "
                f"{tensors.dtype_name(provided)} is provided"
            )
        total_bytes += tensors.claimed_bytes(alias, protos[alias])
        if total_bytes > max_input_bytes:
            raise invalid_argument(
                f"tensor parsing error: {alias}: the inputs up to this one claim {total_bytes} "
                f"bytes, at most {max_input_bytes} are accepted"
            )
    return {alias: tensors.decode(alias, proto) for alias, proto in protos.items()}


def _braces(names: Collection[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
