"""The checks over gRPC: happy paths and the error table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.conformance_checks.outcome import FAILED, PASSED, SKIPPED, Expected, Outcome, holds
from serving.conformance_checks.requests import (
    DEFAULT_SIGNATURE,
    can_be_called,
    dtype_name,
    inputs_of,
    single_input_signature,
    tensor,
)

Signatures: TypeAlias = Mapping[str, meta_graph_pb2.SignatureDef]

_Classification = classification_pb2.ClassificationRequest
_Regression = regression_pb2.RegressionRequest

_ABSENT = "no-such-thing"
_ABSENT_VERSION = 2**62
_CLASSIFY, _REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class GrpcChecks:
    """The checks over gRPC.

    Args:
        target: gRPC address, `HOST:PORT`.
        model_name: A model that the server serves.
        timeout: How many seconds each request may take.

    Raises:
        grpc.RpcError: If the server cannot be asked for the model's signatures.
    """

    def __init__(self, target: str, model_name: str, timeout: float):
        self._name = model_name
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)])
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)
        request = self._metadata_request()
        response = self._prediction.GetModelMetadata(request, timeout=timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        self.signatures: Signatures = dict(signatures.signature_def)
        self.version: int = response.model_spec.version.value

    def run(self) -> Iterator[Outcome]:
        """Yields the outcome of one check after the other."""
        yield from self._status_and_metadata()
        yield from self._predict_answers()
        yield from self._predict_refusals()
        yield from self._examples()
        yield self._refused(
            "reload without a model list",
            self._model.HandleReloadConfigRequest,
            model_management_pb2.ReloadConfigRequest(),
            Expected("INVALID_ARGUMENT", "ServerModelConfig type not supported by ", False),
        )
        yield self._health()

    def _status_and_metadata(self) -> Iterator[Outcome]:
        status, metadata = self._model.GetModelStatus, self._prediction.GetModelMetadata

        def available() -> str:
            response = status(self._status_request(), timeout=self._timeout)
            states = {each.version: each.state for each in response.model_version_status}
            if states.get(self.version) != get_model_status_pb2.ModelVersionStatus.AVAILABLE:
                raise AssertionError(f"states by version: {states}")
            return f"version {self.version} AVAILABLE"

        yield holds("status of the model", "its version AVAILABLE", available)
        yield self._refused(
            "status of an unknown model",
            status,
            self._status_request(name=_ABSENT),
            Expected("NOT_FOUND", f"Could not find any versions of model {_ABSENT}"),
        )
        yield self._refused(
            "status of an unknown version",
            status,
            self._status_request(version=_ABSENT_VERSION),
            Expected(
                "NOT_FOUND", f"Could not find version {_ABSENT_VERSION} of model {self._name}"
            ),
        )
        missing = Expected("INVALID_ARGUMENT", "Missing ModelSpec")
        request: Any = get_model_status_pb2.GetModelStatusRequest()
        yield self._refused("status without a model", status, request, missing)
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        yield self._refused("metadata without a model", metadata, request, missing)
        yield self._refused(
            "metadata without a field",
            metadata,
            self._metadata_request(fields=()),
            Expected(
                "INVALID_ARGUMENT",
                "GetModelMetadataRequest must specify at least one metadata_field",
            ),
        )
        yield self._refused(
            "metadata of an unknown field",
            metadata,
            self._metadata_request(fields=("graph",)),
            Expected("INVALID_ARGUMENT", "Metadata field graph is not supported"),
        )

    def _predict_answers(self) -> Iterator[Outcome]:
        def answer() -> str:
            response = self._predict(self._request(DEFAULT_SIGNATURE))
            spec = response.model_spec
            found = (spec.name, spec.version.value, spec.signature_name)
            if found != (self._name, self.version, DEFAULT_SIGNATURE):
                raise AssertionError(f"model_spec {found}")
            if set(response.outputs) != set(self.signatures[DEFAULT_SIGNATURE].outputs):
                raise AssertionError(f"outputs {sorted(response.outputs)}")
            if any(proto.tensor_content for proto in response.outputs.values()):
                raise AssertionError("values in tensor_content instead of typed fields")
            return f"{len(response.outputs)} outputs in typed fields"

        yield holds("predict", "the signature's outputs", answer)
        for name, signature in sorted(self.signatures.items()):
            if name != DEFAULT_SIGNATURE and can_be_called(signature):
                yield holds(f"predict {name}", "an answer", self._outputs_of(name))

        def same(change: Callable[[predict_pb2.PredictRequest], None]) -> Callable[[], str]:
            def check() -> str:
                changed = self._request(DEFAULT_SIGNATURE)
                change(changed)
                if self._predict(changed).outputs != self._predict(self._request("")).outputs:
                    raise AssertionError("other outputs")
                return "the same outputs"

            return check

        def set_version(request: predict_pb2.PredictRequest) -> None:
            request.model_spec.version.value = self.version

        yield holds("predict with a version", "the same outputs", same(set_version))
        defaults = self.signatures[DEFAULT_SIGNATURE].defaults
        if defaults:

            def set_defaults(request: predict_pb2.PredictRequest) -> None:
                for alias, proto in defaults.items():
                    request.inputs[alias].CopyFrom(proto)

            names = ", ".join(sorted(defaults))
            yield holds(f"default of {names} sent", "the same outputs", same(set_defaults))

        def filtered() -> str:
            request = self._request(DEFAULT_SIGNATURE)
            request.output_filter.append(min(self.signatures[DEFAULT_SIGNATURE].outputs))
            outputs = list(self._predict(request).outputs)
            if outputs != list(request.output_filter):
                raise AssertionError(f"outputs {outputs}")
            return "that output"

        yield holds("predict with an output filter", "that output alone", filtered)

    def _predict_refusals(self) -> Iterator[Outcome]:
        def refused(
            name: str,
            status: str,
            text: str,
            change: Callable[[predict_pb2.PredictRequest], object],
            whole: bool = True,
            signature: str = DEFAULT_SIGNATURE,
        ) -> Outcome:
            request = self._request(signature)
            change(request)
            expected = Expected(status, text, whole)
            return self._refused(name, self._prediction.Predict, request, expected)

        not_found, invalid = "NOT_FOUND", "INVALID_ARGUMENT"
        yield refused(
            "unknown model",
            not_found,
            f"Servable not found for request: Latest({_ABSENT})",
            lambda request: setattr(request.model_spec, "name", _ABSENT),
        )
        yield refused(
            "unknown version",
            not_found,
            f"Servable not found for request: Specific({self._name}, {_ABSENT_VERSION})",
            lambda request: setattr(request.model_spec.version, "value", _ABSENT_VERSION),
        )
        yield refused(
            "empty model name",
            invalid,
            "ModelSpec has no name specified.",
            lambda request: setattr(request.model_spec, "name", ""),
        )
        yield refused(
            "no model",
            invalid,
            "Missing ModelSpec",
            lambda request: request.ClearField("model_spec"),
        )
        yield refused(
            "unknown label",
            invalid,
            f"Unrecognized servable version label: {_ABSENT}",
            lambda request: setattr(request.model_spec, "version_label", _ABSENT),
        )
        yield refused(
            "unknown signature",
            "FAILED_PRECONDITION",
            f'Serving signature key "{_ABSENT}" not found.',
            lambda request: setattr(request.model_spec, "signature_name", _ABSENT),
        )
        outputs = ",".join(sorted(self.signatures[DEFAULT_SIGNATURE].outputs))
        yield refused(
            "unknown output in the filter",
            invalid,
            f"output tensor alias not found in signature: {_ABSENT} Outputs expected to be in "
            f"the set {{{outputs}}}.",
            lambda request: request.output_filter.append(_ABSENT),
        )
        output = min(self.signatures[DEFAULT_SIGNATURE].outputs)
        yield refused(
            "the same output twice",
            invalid,
            f"duplicate output tensor alias: {output}",
            lambda request: request.output_filter.extend([output, output]),
        )
        found = single_input_signature(self.signatures)
        if found is None:
            yield Outcome("inputs that do not fit", SKIPPED, "", "no signature of one input")
            return
        name, alias, info = found
        braces = "{" + alias + "}"
        yield refused(
            "missing input",
            invalid,
            f"input size does not match signature: 0!=1 len({{}}) != len({braces}). "
            f"Sent extra: {{}}. Missing but required: {braces}.",
            lambda request: request.ClearField("inputs"),
            signature=name,
        )
        yield refused(
            "extra input",
            invalid,
            "input size does not match signature: 2!=1 ",
            lambda request: request.inputs[_ABSENT].CopyFrom(tensor(types_pb2.DT_FLOAT, [1])),
            whole=False,
            signature=name,
        )

        def rename(request: predict_pb2.PredictRequest) -> None:
            request.inputs[_ABSENT].CopyFrom(request.inputs[alias])
            del request.inputs[alias]

        yield refused(
            "wrong input name",
            invalid,
            f"Signature input alias: {alias}",
            rename,
            whole=False,
            signature=name,
        )
        other = types_pb2.DT_DOUBLE if info.dtype != types_pb2.DT_DOUBLE else types_pb2.DT_FLOAT
        yield refused(
            "wrong dtype",
            invalid,
            f"Expects arg[0] to be {dtype_name(info.dtype)} but {dtype_name(other)} is provided",
            lambda request: setattr(request.inputs[alias], "dtype", other),
            signature=name,
        )
        yield refused(
            "malformed tensor",
            invalid,
            "tensor parsing error: ",
            lambda request: setattr(request.inputs[alias].tensor_shape.dim[0], "size", -1),
            whole=False,
            signature=name,
        )
        if len(info.tensor_shape.dim) > 1:
            yield refused(
                "wrong shape: the op's own message",
                invalid,
                "",
                lambda request: request.inputs[alias].CopyFrom(tensor(info.dtype, [1])),
                whole=False,
                signature=name,
            )

    def _examples(self) -> Iterator[Outcome]:
        invalid = "INVALID_ARGUMENT"
        classify, regress = self._prediction.Classify, self._prediction.Regress
        kinds: list[tuple[str, Any, Any, str, str]] = [
            ("classify", classify, _Classification(), "classification", _CLASSIFY),
            ("regress", regress, _Regression(), "regression", _REGRESS),
        ]
        for name, method, request, kind, method_name in kinds:
            text = "Missing ModelSpec"
            yield self._refused(f"{name} without a model", method, request, Expected(invalid, text))
            request.model_spec.name = self._name
            request.input.example_list.examples.add()
            request.model_spec.signature_name = _ABSENT
            text = f"No signature was found with the name: {_ABSENT}"
            yield self._refused(
                f"{name} an unknown signature", method, request, Expected(invalid, text)
            )
            request.model_spec.signature_name = DEFAULT_SIGNATURE
            found = self.signatures[DEFAULT_SIGNATURE].method_name
            if found != method_name:
                text = f"Expected {kind} signature method_name to be {method_name}. Was: {found}"
                yield self._refused(
                    f"{name} a signature of another kind", method, request, Expected(invalid, text)
                )
        multi = inference_pb2.MultiInferenceRequest()
        multi.input.example_list.examples.add()
        task = multi.tasks.add(method_name=_CLASSIFY)
        task.model_spec.name = self._name
        task.model_spec.signature_name = _ABSENT
        yield self._refused(
            "multi-inference of an unknown signature",
            self._prediction.MultiInference,
            multi,
            Expected(invalid, f"Requested signature not found in model graph: {_ABSENT}"),
        )
        task.method_name, task.model_spec.signature_name = _ABSENT, DEFAULT_SIGNATURE
        yield self._refused(
            "multi-inference by an unknown method",
            self._prediction.MultiInference,
            multi,
            Expected("UNIMPLEMENTED", f"Unsupported signature method_name: {_ABSENT}"),
        )

    def _health(self) -> Outcome:
        # An empty request and an answer of one number: no need for the generated messages.
        check = self._channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return Outcome("health", SKIPPED, "SERVING", "not switched on")
            return Outcome("health", FAILED, "SERVING", f"{error.code().name} {error.details()}")
        serving = answer == b"\x08\x01"
        found = "SERVING" if serving else repr(answer)
        return Outcome("health", PASSED if serving else FAILED, "SERVING", found)

    def _outputs_of(self, signature: str) -> Callable[[], str]:
        return lambda: f"{len(self._predict(self._request(signature)).outputs)} outputs"

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        return self._prediction.Predict(request, timeout=self._timeout)

    def _refused(self, name: str, method: Any, request: Any, expected: Expected) -> Outcome:
        try:
            method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            return expected.outcome(name, error.code().name, error.details() or "")
        return expected.outcome(name, "OK", "")

    def _request(self, signature: str) -> predict_pb2.PredictRequest:
        inputs = inputs_of(self.signatures[signature or DEFAULT_SIGNATURE])
        request = predict_pb2.PredictRequest(inputs=inputs)
        request.model_spec.name = self._name
        request.model_spec.signature_name = signature
        return request

    def _metadata_request(
        self, fields: Sequence[str] = ("signature_def",)
    ) -> get_model_metadata_pb2.GetModelMetadataRequest:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        request.model_spec.name = self._name
        return request

    def _status_request(
        self, name: str | None = None, version: int | None = None
    ) -> get_model_status_pb2.GetModelStatusRequest:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._name if name is None else name
        if version is not None:
            request.model_spec.version.value = version
        return request
