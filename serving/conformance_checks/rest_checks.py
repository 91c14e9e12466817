"""The checks over REST: happy paths and the error table."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

from tensorflow.core.framework import types_pb2

from serving.conformance_checks.grpc_checks import Signatures
from serving.conformance_checks.outcome import Expected, Outcome, holds
from serving.conformance_checks.requests import DEFAULT_SIGNATURE

_ABSENT = "no-such-thing"
_ABSENT_VERSION = 2**62


class RestChecks:
    """The checks over REST.

    Args:
        rest: REST address, `HOST:PORT`.
        model_name: A model that the server serves.
        signatures: The model's signatures, as gRPC told them.
        version: The version that is served.
        timeout: How many seconds each request may take.
    """

    def __init__(
        self, rest: str, model_name: str, signatures: Signatures, version: int, timeout: float
    ):
        self._address = rest
        self._signatures = signatures
        self._version = version
        self._timeout = timeout
        self._name = model_name
        self._path = f"/v1/models/{model_name}"

    def run(self) -> Iterator[Outcome]:
        """Yields the outcome of one check after the other."""
        yield from self._answers()
        yield from self._refusals()

    def _answers(self) -> Iterator[Outcome]:
        def status() -> str:
            answer = self._ok("GET", self._path)
            states = {each["version"]: each for each in answer["model_version_status"]}
            if states[str(self._version)]["state"] != "AVAILABLE":
                raise AssertionError(str(states))
            if states[str(self._version)]["status"]["error_code"] != "OK":
                raise AssertionError(str(states))
            return f"version {self._version} AVAILABLE"

        def metadata() -> str:
            answer = self._ok("GET", f"{self._path}/metadata")
            if answer["model_spec"]["version"] != str(self._version):
                raise AssertionError(str(answer["model_spec"]))
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            if set(signatures) != set(self._signatures):
                raise AssertionError(f"signatures {sorted(signatures)}")
            return f"{len(signatures)} signatures"

        yield holds("REST status", "its version AVAILABLE", status)
        yield holds("REST metadata", "the signatures of gRPC", metadata)
        outputs = sorted(self._signatures[DEFAULT_SIGNATURE].outputs)

        def rows() -> dict[str, Any]:
            (row,) = self._ok("POST", f"{self._path}:predict", self._rows())["predictions"]
            return row if len(outputs) > 1 else {outputs[0]: row}

        def row_format() -> str:
            row = rows()
            if sorted(row) != outputs:
                raise AssertionError(f"outputs {sorted(row)}")
            return f"1 row of {len(row)} outputs"

        def columns(path: str, inputs: dict[str, Any]) -> str:
            answer = self._ok("POST", path, {"inputs": inputs})["outputs"]
            answer = answer if len(outputs) > 1 else {outputs[0]: answer}
            row = rows()
            if {name: values[0] for name, values in answer.items()} != row:
                raise AssertionError("other values than in row format")
            return "the same values"

        expected = "the values of the row format"
        yield holds("REST predict, row format", "a row of the signature's outputs", row_format)
        yield holds(
            "REST predict, column format",
            expected,
            lambda: columns(f"{self._path}:predict", self._columns()),
        )
        yield holds(
            "REST predict with a version",
            expected,
            lambda: columns(f"{self._path}/versions/{self._version}:predict", self._columns()),
        )
        if any(info.dtype == types_pb2.DT_STRING for info in self._inputs().values()):
            yield holds(
                "REST predict, strings in base64",
                expected,
                lambda: columns(f"{self._path}:predict", self._columns(in_base64=True)),
            )

    def _refusals(self) -> Iterator[Outcome]:
        predict = f"{self._path}:predict"
        document = {"inputs": self._columns()}
        unknown = f"Servable not found for request: Latest({_ABSENT})"
        yield self._refused(
            "unknown model", f"/v1/models/{_ABSENT}:predict", document, 404, unknown
        )
        yield self._refused(
            "unknown version",
            f"{self._path}/versions/{_ABSENT_VERSION}:predict",
            document,
            404,
            f"Servable not found for request: Specific({self._name}, {_ABSENT_VERSION})",
        )
        yield self._refused(
            "unknown label",
            f"{self._path}/labels/{_ABSENT}:predict",
            document,
            400,
            f"Unrecognized servable version label: {_ABSENT}",
        )
        yield self._refused(
            "unknown signature",
            predict,
            {**document, "signature_name": _ABSENT},
            400,
            f'Serving signature name: "{_ABSENT}" not found in signature def',
        )
        yield self._refused("malformed JSON", predict, b"{", 400, "JSON Parse error: ", False)
        yield self._refused(
            "empty body", predict, b"", 400, "JSON Parse error: The document is empty"
        )
        yield self._refused("no object", predict, b"[]", 400, "JSON Value: [] Is not object")
        yield self._refused(
            "neither format", predict, {}, 400, "Missing 'inputs' or 'instances' key"
        )
        yield self._refused(
            "both formats", predict, {**document, "instances": [{}]}, 400, "JSON Value: ", False
        )
        alias = min(self._inputs())
        yield self._refused(
            "missing input",
            predict,
            {"inputs": {name: 0 for name in self._inputs() if name != alias} or {_ABSENT: 0}},
            400,
            f"Missing named input: {alias} in 'inputs' object.",
        )
        yield self._refused(
            "wrong type",
            predict,
            {"inputs": {name: None for name in self._inputs()}},
            400,
            "JSON Value: null ",
            False,
        )
        yield self._refused(
            "classify without examples",
            f"{self._path}:classify",
            {},
            400,
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        )
        yield self._refused(
            "regress an unknown signature",
            f"{self._path}:regress",
            {"signature_name": _ABSENT, "examples": [{"x": 1.0}]},
            400,
            f"No signature was found with the name: {_ABSENT}",
        )
        yield self._refused(
            "unknown method",
            f"{self._path}:explain",
            document,
            400,
            f"Malformed request: POST {self._path}:explain",
        )
        for name, path, status, text in (
            (
                "status of an unknown model",
                f"/v1/models/{_ABSENT}",
                404,
                f"Could not find any versions of model {_ABSENT}",
            ),
            ("status without a model", "/v1/models", 400, "Missing model name in request."),
            ("unknown path", "/v1/model", 400, "Malformed request: GET /v1/model"),
        ):
            found = self._ask("GET", path)
            yield Expected(status, text).outcome(f"REST {name}", found[0], _error(found[1]))

    def _refused(
        self, name: str, path: str, document: Any, status: int, text: str, whole: bool = True
    ) -> Outcome:
        found, body = self._ask("POST", path, document)
        return Expected(status, text, whole).outcome(f"REST {name}", found, _error(body))

    def _ok(self, method: str, path: str, document: Any = None) -> Any:
        status, body = self._ask(method, path, document)
        if status != 200:
            raise AssertionError(f"{status} {_error(body)}")
        return json.loads(body)

    def _ask(self, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        try:
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            connection.request(method, path, None if document is None else body)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
        finally:
            connection.close()

    def _inputs(self) -> dict[str, Any]:
        return dict(self._signatures[DEFAULT_SIGNATURE].inputs)

    def _columns(self, in_base64: bool = False) -> dict[str, Any]:
        """Returns one row of zeros for each input: over REST none can be left out."""
        columns = {}
        for name, info in self._inputs().items():
            value: Any = 0
            if info.dtype == types_pb2.DT_STRING:
                value = {"b64": base64.b64encode(b"").decode()} if in_base64 else ""
            for _ in info.tensor_shape.dim:
                value = [value]
            columns[name] = value
        return columns

    def _rows(self) -> dict[str, Any]:
        row = {name: column[0] for name, column in self._columns().items()}
        return {"instances": [row]}


def _error(body: bytes) -> str:
    try:
        answer = json.loads(body)
        return answer["error"]
    except (ValueError, LookupError, TypeError):
        return f"no JSON error: {body[:100]!r}"
