"""Classify, Regress and MultiInference, over gRPC and REST, on a model with signatures for them."""

import http.client
import json

import grpc
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.process import ServerProcess

TIMEOUT = 60.0
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Examples(tf.Module):
    """Regresses 2x; classifies x into low and high, with x as the score of high."""

    SPEC = [tf.TensorSpec([None], tf.string, name="inputs")]

    def _x(self, inputs):
        features = {"x": tf.io.FixedLenFeature([], tf.float32)}
        return tf.io.parse_example(inputs, features)["x"]

    @tf.function(input_signature=SPEC)
    def regress(self, inputs):
        return {"outputs": 2.0 * self._x(inputs)}

    @tf.function(input_signature=SPEC)
    def regress_columns(self, inputs):
        return {"outputs": tf.stack([self._x(inputs)] * 2, axis=1)}

    @tf.function(input_signature=SPEC)
    def classify(self, inputs):
        x = self._x(inputs)
        labels = tf.broadcast_to(tf.constant(["low", "high"]), [tf.size(x), 2])
        return {"classes": labels, "scores": tf.stack([1.0 - x, x], axis=1)}

    @tf.function(input_signature=SPEC)
    def scores(self, inputs):
        return {"scores": self._x(inputs)[:, tf.newaxis]}

    @tf.function(input_signature=SPEC)
    def both(self, inputs):
        return {**self.regress(inputs), **self.classify(inputs)}

    @tf.function(input_signature=SPEC)
    def other_outputs(self, inputs):
        return {"values": self._x(inputs)}


METHODS = {
    "regress": REGRESS,
    "regress_columns": REGRESS,
    "classify": CLASSIFY,
    "scores": CLASSIFY,
    "other_outputs": CLASSIFY,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("examples")
    model = Examples()
    signatures = {name: getattr(model, name) for name in METHODS}
    signatures |= {"serving_default": model.regress, "both": model.both}
    tf.saved_model.save(model, str(base / "3"), signatures=signatures)
    path = base / "3" / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    found = saved_model.meta_graphs[0].signature_def
    for name, method in METHODS.items():
        found[name].method_name = method
    # Two signatures of one input tensor, as Estimators export them: MultiInference needs that.
    for name, method, outputs in (
        ("both_regress", REGRESS, ["outputs"]),
        ("both_classify", CLASSIFY, ["classes", "scores"]),
    ):
        found[name].inputs["inputs"].CopyFrom(found["both"].inputs["inputs"])
        for output in outputs:
            found[name].outputs[output].CopyFrom(found["both"].outputs[output])
        found[name].method_name = method
    path.write_bytes(saved_model.SerializeToString())
    with ServerProcess(base, "toy", rest=True) as process:
        yield process


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def example(x=None):
    features = {} if x is None else {"x": tf.train.Feature(float_list={"value": [x]})}
    return tf.train.Example(features=tf.train.Features(feature=features))


def filled(request, signature, *values, context=None):
    request.model_spec.name = "toy"
    request.model_spec.signature_name = signature
    listed = request.input.example_list
    if context is not None:
        listed = request.input.example_list_with_context
        listed.context.CopyFrom(example(context))
    listed.examples.extend(example(value) for value in values)
    return request


def regression(signature, *values, context=None):
    return filled(regression_pb2.RegressionRequest(), signature, *values, context=context)


def classification(signature, *values, context=None):
    return filled(classification_pb2.ClassificationRequest(), signature, *values, context=context)


def failure(method, request):
    with pytest.raises(grpc.RpcError) as caught:
        method(request, timeout=TIMEOUT)
    return caught.value.code().name, caught.value.details()


def test_regress(stub):
    response = stub.Regress(regression("regress", 1.5, -2.0), timeout=TIMEOUT)
    assert [each.value for each in response.result.regressions] == [3.0, -4.0]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 3, "regress")


def test_classify(stub):
    response = stub.Classify(classification("classify", 0.25, 1.0), timeout=TIMEOUT)
    found = [
        [(each.label, each.score) for each in classifications.classes]
        for classifications in response.result.classifications
    ]
    assert found == [[("low", 0.75), ("high", 0.25)], [("low", 0.0), ("high", 1.0)]]


def test_classify_with_scores_alone(stub):
    response = stub.Classify(classification("scores", 0.25), timeout=TIMEOUT)
    ((found,),) = [each.classes for each in response.result.classifications]
    assert (found.label, found.score) == ("", 0.25)


def test_a_context_stands_for_what_an_example_leaves_out(stub):
    request = regression("regress", None, 5.0, context=1.0)
    response = stub.Regress(request, timeout=TIMEOUT)
    assert [each.value for each in response.result.regressions] == [2.0, 10.0]


def multi(*tasks, values=(0.25,)):
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = "toy"
        task.model_spec.signature_name = signature
    request.input.example_list.examples.extend(example(value) for value in values)
    return request


def test_multi_inference(stub):
    request = multi(("both_regress", REGRESS), ("both_classify", CLASSIFY), values=(0.25, 0.5))
    regressed, classified = stub.MultiInference(request, timeout=TIMEOUT).results
    assert regressed.model_spec.signature_name == "both_regress"
    assert [each.value for each in regressed.regression_result.regressions] == [0.5, 1.0]
    assert classified.model_spec.version.value == 3
    classes = [each.classes[1] for each in classified.classification_result.classifications]
    assert [(each.label, each.score) for each in classes] == [("high", 0.25), ("high", 0.5)]


@pytest.mark.parametrize(
    ("request_message", "status", "text"),
    [
        (regression("no"), "INVALID_ARGUMENT", "No signature was found with the name: no"),
        (
            regression("classify", 1.0),
            "INVALID_ARGUMENT",
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/classify",
        ),
        (regression("regress"), "INVALID_ARGUMENT", "Input is empty."),
        (
            regression("regress_columns", 1.0),
            "INVALID_ARGUMENT",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            "[1,2]",
        ),
        (regression_pb2.RegressionRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_regress_refuses(stub, request_message, status, text):
    assert failure(stub.Regress, request_message) == (status, text)


@pytest.mark.parametrize(
    ("request_message", "status", "text"),
    [
        (classification(""), "INVALID_ARGUMENT", "Expected classification signature method_name"),
        (classification("scores"), "INVALID_ARGUMENT", "Input is empty."),
        (
            classification("other_outputs", 1.0),
            "FAILED_PRECONDITION",
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: ',
        ),
        (classification("classify", None), "INVALID_ARGUMENT", ""),
    ],
)
def test_classify_refuses(stub, request_message, status, text):
    code, details = failure(stub.Classify, request_message)
    assert code == status
    assert details.startswith(text)


@pytest.mark.parametrize(
    ("request_message", "status", "text"),
    [
        (multi(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            multi(("no", REGRESS)),
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: no",
        ),
        (
            multi(("regress", REGRESS), ("regress", REGRESS)),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress",
        ),
        (
            multi(("regress", "tensorflow/serving/predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            multi(("regress", REGRESS), ("classify", CLASSIFY)),
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
        (multi(("regress", REGRESS), values=()), "INVALID_ARGUMENT", "Input is empty."),
    ],
)
def test_multi_inference_refuses(stub, request_message, status, text):
    assert failure(stub.MultiInference, request_message) == (status, text)


def test_multi_inference_of_two_models(stub):
    request = multi(("regress", REGRESS), ("classify", CLASSIFY))
    request.tasks[1].model_spec.name = "other"
    text = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
    assert failure(stub.MultiInference, request) == ("INVALID_ARGUMENT", text)


def post(server, path, document):
    connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
    connection.request("POST", path, json.dumps(document))
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_regress_over_rest(server):
    document = {"context": {"x": 1.0}, "examples": [{}, {"x": [0.2]}]}
    assert post(server, "/v1/models/toy:regress", {**document, "signature_name": "regress"}) == (
        200,
        {"results": [2.0, 0.4]},
    )


def test_classify_over_rest(server):
    document = {"signature_name": "classify", "examples": [{"x": 0.25}]}
    assert post(server, "/v1/models/toy/versions/3:classify", document) == (
        200,
        {"results": [[["low", 0.75], ["high", 0.25]]]},
    )


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {},
            "When method is classify, key 'examples' is expected and was not found",
        ),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        (
            {"examples": [{"x": [1.5, 1]}]},
            "Unexpected element type in feature: x expecting type: fl",
        ),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": 1e300}]}, "Cannot convert JSON value: 1e+300 to float without loss"),
        ({"examples": [{"x": {"b64": "!"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": "\ud800"}]}, "The surrogate pair in string is invalid."),
        ({"examples": [{"x": "text"}]}, ""),
    ],
)
def test_examples_that_json_gets_wrong(server, document, text):
    document["signature_name"] = "classify"
    status, answer = post(server, "/v1/models/toy:classify", document)
    assert status == 400
    assert text in answer["error"]
