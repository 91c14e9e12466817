"""Codes, texts and answers of the server, through a real channel."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

TIMEOUT = 60.0


def request_for(signature="double", name="recommender", **inputs) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        if not isinstance(value, tensor_pb2.TensorProto):
            value = tf.make_tensor_proto(value)
        request.inputs[key].CopyFrom(value)
    return request


def failure(method, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=TIMEOUT)
    return caught.value.code(), caught.value.details()


ONE = np.array([1.0], np.float32)


def unknown_version(request):
    request.model_spec.version.value = 9
    return request


def unknown_label(request):
    request.model_spec.version_label = "stable"
    return request


@pytest.mark.parametrize(
    ("request_message", "code", "text"),
    [
        pytest.param(
            request_for(name="other", x=ONE),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(other)",
            id="unknown model",
        ),
        pytest.param(
            unknown_version(request_for(x=ONE)),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(recommender, 9)",
            id="unknown version",
        ),
        pytest.param(
            unknown_version(request_for(name="other", x=ONE)),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(other, 9)",
            id="unknown version of unknown model",
        ),
        pytest.param(
            request_for(name="", x=ONE),
            grpc.StatusCode.INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
            id="empty name",
        ),
        pytest.param(
            unknown_label(request_for(x=ONE)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: stable",
            id="unknown label",
        ),
        pytest.param(
            request_for("other", x=ONE),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "other" not found.',
            id="unknown signature",
        ),
        pytest.param(
            request_for("__saved_model_init_op"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "__saved_model_init_op" not found.',
            id="initialiser",
        ),
        pytest.param(
            request_for(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
            "Missing but required: {x}.",
            id="missing input",
        ),
        pytest.param(
            request_for(x=ONE, z=ONE, y=ONE),
            grpc.StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 3!=1 len({x,y,z}) != len({x}). "
            "Sent extra: {y,z}. Missing but required: {}.",
            id="extra inputs",
        ),
        pytest.param(
            request_for(wrong=ONE),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: double_x:0) not found in request and no default "
            "value provided. Inputs expected to be in the request {wrong}, or default input "
            "alias set: ",
            id="wrong input name",
        ),
        pytest.param(
            request_for("serving_default", exclude=[["item-1"]]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Signature input alias: history(feed name: serving_default_history:0) not found in "
            "request and no default value provided. Inputs expected to be in the request "
            "{exclude}, or default input alias set: exclude",
            id="missing input without a default",
        ),
        pytest.param(
            request_for("serving_default", history=[["item-1"]], wrong=ONE),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Inputs contains invalid name. Used request inputs: history, "
            "request input: history,wrong",
            id="wrong name for an input with a default",
        ),
        pytest.param(
            request_for(x=np.array([1.0])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided",
            id="wrong dtype",
        ),
        pytest.param(
            request_for("add", a=ONE, b=np.array([1])),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Expects arg[1] to be float but int64 is provided",
            id="wrong dtype of the second input",
        ),
    ],
)
def test_predict_refuses(prediction_stub, request_message, code, text):
    assert failure(prediction_stub.Predict, request_message) == (code, text)


def test_wrong_shape_gives_the_ops_own_message(prediction_stub):
    request = request_for("add", a=np.ones(2, np.float32), b=np.ones(3, np.float32))
    code, text = failure(prediction_stub.Predict, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("Incompatible shapes: [2] vs. [3]")
    assert "Graph execution error" not in text
    assert "[Op:" not in text


@pytest.mark.parametrize(
    ("output_filter", "text"),
    [
        (
            ["sum", "product"],
            "output tensor alias not found in signature: product Outputs expected to be in the "
            "set {difference,sum}.",
        ),
        (["sum", "sum"], "duplicate output tensor alias: sum"),
    ],
)
def test_wrong_output_filter(prediction_stub, output_filter, text):
    request = request_for("add", a=ONE, b=ONE)
    request.output_filter.extend(output_filter)
    assert failure(prediction_stub.Predict, request) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_output_filter_leaves_out_the_rest(prediction_stub):
    request = request_for("add", a=ONE, b=ONE)
    request.output_filter.append("difference")
    assert set(prediction_stub.Predict(request, timeout=TIMEOUT).outputs) == {"difference"}


def test_answer_names_model_version_and_signature_and_uses_typed_fields(prediction_stub):
    request = request_for(x=np.array([1.0, 1.5], np.float32))
    response = prediction_stub.Predict(request, timeout=TIMEOUT)
    assert response.model_spec.name == "recommender"
    assert response.model_spec.version.value == 7
    assert response.model_spec.signature_name == "double"
    assert list(response.outputs["y"].float_val) == [2.0, 3.0]
    assert response.outputs["y"].tensor_content == b""


def test_signature_defaults_to_serving_default(prediction_stub):
    request = request_for("", history=[["item-1"]], exclude=[["item-2"]])
    response = prediction_stub.Predict(request, timeout=TIMEOUT)
    assert response.model_spec.signature_name == "serving_default"


def test_the_loaded_version_can_be_asked_for(prediction_stub):
    request = request_for(x=ONE)
    request.model_spec.version.value = 7
    assert prediction_stub.Predict(request, timeout=TIMEOUT).model_spec.version.value == 7


def test_a_missing_input_takes_its_default(prediction_stub):
    short = prediction_stub.Predict(
        request_for("serving_default", history=[["item-1"]]), timeout=TIMEOUT
    )
    full = prediction_stub.Predict(
        request_for(
            "serving_default",
            history=[["item-1"]],
            exclude=tf.make_tensor_proto([], tf.string, shape=[1, 0]),
        ),
        timeout=TIMEOUT,
    )
    assert short.outputs == full.outputs


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"float_val": [3.0]}, id="one value for all"),
        pytest.param({"float_val": [3.0, 3.0]}, id="last value repeated"),
        pytest.param({"tensor_content": np.full(3, 3.0, np.float32).tobytes()}, id="content"),
    ],
)
def test_every_way_to_write_a_tensor(prediction_stub, values):
    proto = tensor_pb2.TensorProto(dtype=1, **values)
    proto.tensor_shape.dim.add(size=3)
    response = prediction_stub.Predict(request_for(x=proto), timeout=TIMEOUT)
    assert list(response.outputs["y"].float_val) == [6.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("dtype", "dimensions", "values", "reason"),
    [
        (1, [-1], {"float_val": [1.0]}, "negative dimension in shape [-1]"),
        (1, [1], {"float_val": [1.0, 2.0]}, "2 values for a shape of 1 elements"),
        (1, [3], {"tensor_content": b"1234"}, "the values do not agree with dtype and shape"),
        (1, [2**40], {"float_val": [1.0]}, "claim 4398046511104 bytes"),
        (1, [2**62, 2**62, 2**62], {}, "at most 67108864 are accepted"),
        (1, [0, 2**62], {}, "at most 67108864 are accepted"),
        (1, [1] * 300, {"float_val": [1.0]}, "300 dimensions, at most 254"),
        (0, [1], {"float_val": [1.0]}, "no valid dtype"),
        (999, [1], {"float_val": [1.0]}, "no valid dtype"),
    ],
)
def test_malformed_tensor(prediction_stub, dtype, dimensions, values, reason):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in dimensions:
        proto.tensor_shape.dim.add(size=size)
    code, text = failure(prediction_stub.Predict, request_for(x=proto))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("tensor parsing error: x: ")
    assert reason in text


def test_a_long_error_text_is_cut(prediction_stub):
    request = request_for("é" * 100_000, x=ONE)
    code, text = failure(prediction_stub.Predict, request)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text.endswith("...TRUNCATED")
    assert len(text.encode()) < 1100


def metadata_request(name="recommender", fields=("signature_def",)):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    return request


def test_metadata_is_that_of_the_saved_model(prediction_stub, exports):
    response = prediction_stub.GetModelMetadata(metadata_request(), timeout=TIMEOUT)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    saved_model = saved_model_pb2.SavedModel.FromString(
        (exports[1.0] / "saved_model.pb").read_bytes()
    )
    assert signatures.signature_def == saved_model.meta_graphs[0].signature_def
    assert response.model_spec.version.value == 7


@pytest.mark.parametrize(
    ("request_message", "code", "text"),
    [
        (
            get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Missing ModelSpec",
        ),
        (
            metadata_request(fields=()),
            grpc.StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata_request(fields=["graph"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Metadata field graph is not supported",
        ),
        (
            metadata_request(name="other"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(other)",
        ),
    ],
)
def test_metadata_refuses(prediction_stub, request_message, code, text):
    assert failure(prediction_stub.GetModelMetadata, request_message) == (code, text)


def status_request(name="recommender", version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


@pytest.mark.parametrize("version", [None, 7])
def test_status(model_stub, version):
    response = model_stub.GetModelStatus(status_request(version=version), timeout=TIMEOUT)
    (status,) = response.model_version_status
    assert status.version == 7
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert status.status.error_code == 0


@pytest.mark.parametrize(
    ("request_message", "code", "text"),
    [
        (
            status_request("other"),
            grpc.StatusCode.NOT_FOUND,
            "Could not find any versions of model other",
        ),
        (
            status_request(version=9),
            grpc.StatusCode.NOT_FOUND,
            "Could not find version 9 of model recommender",
        ),
        (
            get_model_status_pb2.GetModelStatusRequest(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "Missing ModelSpec",
        ),
    ],
)
def test_status_refuses(model_stub, request_message, code, text):
    assert failure(model_stub.GetModelStatus, request_message) == (code, text)
