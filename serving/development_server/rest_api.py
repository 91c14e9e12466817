"""The REST API: from method, path and body to status and JSON. The transport is `rest_server`'s."""

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.development_server import json_examples, json_tensors
from serving.development_server.core import SIGNATURE_DEF, Core
from serving.development_server.status import StatusError, invalid_argument, truncated

_ENTRYPOINT = "REST"
_LARGEST_VERSION = 2**63 - 1

_VERSION_OR_LABEL = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION_OR_LABEL}:(?P<method>classify|regress|predict)",
    re.IGNORECASE,
)
_STATUS = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION_OR_LABEL}(?P<metadata>/metadata)?", re.IGNORECASE
)
_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)

_HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""HTTP's status by gRPC's; 500 for the others."""


@dataclasses.dataclass(frozen=True)
class Response:
    """What goes back to the client."""

    status: int
    body: bytes
    content_type: str = "application/json"


def error_response(status: int, message: str) -> Response:
    """Returns an error in the API's form, `{"error": "..."}`."""
    return Response(status, _json({"error": truncated(message)}))


class RestApi:
    """Answers requests of the REST API with the served models.

    Args:
        core: What answers them.
        metrics_path: Where Prometheus finds the metrics; None for nowhere.
    """

    def __init__(self, core: Core, metrics_path: str | None = None):
        self._core = core
        self._metrics_path = metrics_path

    def handle(self, method: str, path: str, body: bytes) -> Response:
        """Answers one request, whatever it holds.

        Args:
            method: `GET` or `POST`; others are refused.
            path: As it was sent, still percent-encoded; a query is ignored.
            body: The whole body.
        """
        path = path.partition("?")[0]
        if self._metrics_path is not None and path == self._metrics_path:
            return Response(200, self._core.metrics.page().encode(), "text/plain")
        if not _API.fullmatch(path):
            return error_response(404, f"Not found: {path}")
        try:
            prediction = _PREDICTION.fullmatch(path)
            if method == "POST" and prediction:
                return Response(200, _json(self._infer(prediction, body)))
            status = _STATUS.fullmatch(path)
            if method == "GET" and status:
                return Response(200, _json(self._describe(status)))
            raise invalid_argument(f"Malformed request: {method} {path}")
        except StatusError as error:
            return error_response(_HTTP_STATUS.get(error.code, 500), error.message)

    def _infer(self, match: re.Match[str], body: bytes) -> dict[str, Any]:
        model_spec = _model_spec(match)
        api = match["method"].capitalize()
        work: dict[str, Callable[[model_pb2.ModelSpec, bytes], dict[str, Any]]] = {
            "Predict": self._predict,
            "Classify": self._classify,
            "Regress": self._regress,
        }
        return self._core.answer(
            api, _ENTRYPOINT, model_spec.name, lambda: work[api](model_spec, body)
        )

    def _predict(self, model_spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
        document = json_tensors.parse(body)
        model_spec.signature_name = json_tensors.signature_name(document)
        servable = self._core.registry.servable(model_spec)
        name = model_spec.signature_name or "serving_default"
        signature = servable.signature_defs.get(name)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        if not signature.inputs:
            raise invalid_argument(
                f"Failed to get input map for signature: {model_spec.signature_name or 'DEFAULT'}"
            )
        inputs, rows = json_tensors.read_inputs(document, signature.inputs)
        request = predict_pb2.PredictRequest(model_spec=model_spec, inputs=inputs)
        return json_tensors.write_outputs(self._core.predict(request).outputs, rows)

    def _classify(self, model_spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
        document = json_tensors.parse(body)
        model_spec.signature_name = json_tensors.signature_name(document)
        request = classification_pb2.ClassificationRequest(model_spec=model_spec)
        json_examples.read_examples(document, request.input)
        return json_examples.write_classifications(self._core.classify(request).result)

    def _regress(self, model_spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
        document = json_tensors.parse(body)
        model_spec.signature_name = json_tensors.signature_name(document)
        request = regression_pb2.RegressionRequest(model_spec=model_spec)
        json_examples.read_examples(document, request.input)
        return json_examples.write_regressions(self._core.regress(request).result)

    def _describe(self, match: re.Match[str]) -> dict[str, Any]:
        """Returns the status of a model, or with `/metadata` its signatures."""
        if not match["name"]:
            raise invalid_argument("Missing model name in request.")
        model_spec = _model_spec(match)
        if not match["metadata"]:
            status = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec)
            return _as_dict(self._core.status(status), preserving_proto_field_name=False)
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=model_spec, metadata_field=[SIGNATURE_DEF]
        )
        response = self._core.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        return {
            "model_spec": _as_dict(response.model_spec),
            "metadata": {SIGNATURE_DEF: _as_dict(signatures)},
        }


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    model_spec = model_pb2.ModelSpec(name=_unquoted(match["name"]))
    if match["version"]:
        version = int(match["version"]) if len(match["version"]) < 20 else _LARGEST_VERSION + 1
        if version > _LARGEST_VERSION:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        model_spec.version.value = version
    if match["label"]:
        model_spec.version_label = _unquoted(match["label"])
    return model_spec


def _unquoted(text: str) -> str:
    return urllib.parse.unquote(text, errors="replace")


def _as_dict(message: Message, preserving_proto_field_name: bool = True) -> dict[str, Any]:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=preserving_proto_field_name,
        always_print_fields_with_no_presence=True,
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=4).encode()
