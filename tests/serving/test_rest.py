"""The REST API: formats, refusals, and clients that stall, flood or speak no HTTP."""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import threading

import numpy as np
import pytest
import tensorflow as tf

from serving.development_server import json_tensors
from serving.process import ServerProcess

TIMEOUT = 60.0
PREDICT = "/v1/models/recommender:predict"


class Dtypes(tf.Module):
    """Gives back what it takes, in every dtype that JSON carries."""

    @tf.function(
        input_signature=[
            tf.TensorSpec(None, dtype, name=dtype.name)
            for dtype in (tf.float32, tf.float64, tf.int32, tf.int64, tf.uint8, tf.bool, tf.string)
        ]
    )
    def echo(self, *tensors):
        names = ("float32", "float64", "int32", "int64", "uint8", "bool", "text_bytes")
        return dict(zip(names, tensors, strict=True))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="x")])
    def half(self, x):
        return {"y": x}


@pytest.fixture(scope="module")
def server(exports, tmp_path_factory):
    base = tmp_path_factory.mktemp("rest")
    shutil.copytree(exports[1.0], base / "recommender" / "7")
    model = Dtypes()
    signatures = {"serving_default": model.echo, "half": model.half}
    tf.saved_model.save(model, str(base / "dtypes" / "1"), signatures=signatures)
    config = base / "models.config"
    config.write_text(
        "model_config_list {\n"
        + "".join(
            f'config {{ name: "{name}" base_path: "{base / name}" model_platform: "tensorflow" }}'
            for name in ("recommender", "dtypes")
        )
        + "}"
    )
    arguments = ["--model_config_file", str(config), "--rest_api_timeout_in_ms", "4000"]
    arguments += ["--max_message_bytes", "1000000"]
    with ServerProcess(base, rest=True, arguments=arguments) as process:
        yield process


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(text) if text else None


def post(server, body, path=PREDICT):
    return ask(server, "POST", path, body)


def test_row_and_column_format(server):
    row = {"history": ["item-1"], "exclude": ["item-2"]}
    status, rows = post(server, {"instances": [row, {**row, "exclude": ["item-11"]}]})
    assert status == 200
    first, second = rows["predictions"]
    assert first["item_ids"] == ["item-0", "item-3", "item-4", "item-5", "item-6"]
    assert "item-11" not in second["item_ids"]
    columns = {"inputs": {name: [values] for name, values in row.items()}}
    status, found = post(server, columns)
    assert status == 200
    assert {name: values[0] for name, values in found["outputs"].items()} == first


def test_scalar_inputs_go_in_columns(server):
    inputs = {"history": [["item-1"]], "exclude": [[]], "k": 2, "id_weight": 1.0}
    status, found = post(
        server,
        {
            "signature_name": "recommend",
            "inputs": {**inputs, "filter_seen": True, "diversity": 0.0, "unavailable": []},
        },
    )
    assert status == 200
    assert found["outputs"]["item_ids"] == [["item-11", "item-10"]]
    assert found["outputs"]["scores"] == [[11.0, 10.0]]


def test_one_input_and_one_output_need_no_names(server):
    document = {"signature_name": "double", "instances": [1.0, 2]}
    assert post(server, document) == (200, {"predictions": [2.0, 4.0]})
    document = {"signature_name": "double", "inputs": [0.1]}
    assert post(server, document) == (200, {"outputs": [0.2]})


def test_every_dtype(server):
    values = {
        "float32": [[0.1, -2.5e-30], [float("inf"), 16777215]],
        "float64": [0.1, 1e300],
        "int32": 7,
        "int64": [2**63 - 1, -(2**63)],
        "uint8": [255],
        "bool": [True, False],
    }
    text = [{"b64": base64.b64encode(b"\xff\x00").decode()}, "ü"]
    path = "/v1/models/dtypes:predict"
    status, found = post(server, {"inputs": {**values, "string": text}}, path)
    assert status == 200
    outputs = found["outputs"]
    decoded = [base64.b64decode(each["b64"]) for each in outputs.pop("text_bytes")]
    assert decoded == [b"\xff\x00", "ü".encode()]
    assert outputs == values


def test_not_a_number_stays_one(server):
    document = b'{"signature_name": "double", "instances": [NaN]}'
    status, found = post(server, document)
    assert status == 200
    assert np.isnan(found["predictions"][0])


@pytest.mark.parametrize("where", ["/versions/7", "/VERSIONS/007", ""])
def test_a_version_in_the_path(server, where):
    path = f"/v1/models/recommender{where}:predict"
    assert post(server, {"signature_name": "double", "instances": [1.0]}, path)[0] == 200
    assert ask(server, "GET", f"/v1/models/recommender{where}")[0] == 200
    assert ask(server, "GET", f"/v1/models/recommender{where}/metadata")[0] == 200


def test_status_and_metadata(server):
    assert ask(server, "GET", "/v1/models/recommender?pretty=1") == (
        200,
        {
            "model_version_status": [
                {
                    "version": "7",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )
    status, found = ask(server, "GET", "/v1/models/recommender/metadata")
    assert status == 200
    assert found["model_spec"] == {"name": "recommender", "signature_name": "", "version": "7"}
    double = found["metadata"]["signature_def"]["signature_def"]["double"]
    assert double["method_name"] == "tensorflow/serving/predict"
    assert double["inputs"]["x"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


DOUBLE = {"signature_name": "double", "instances": [1.0]}


@pytest.mark.parametrize(
    ("path", "document", "status", "text"),
    [
        (PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (PREDICT, b'{"instances": [1', 400, "JSON Parse error: "),
        (PREDICT, b"\xff", 400, "JSON Parse error: Invalid encoding in string. at offset: 0"),
        (PREDICT, b"[" * 100_000, 400, "JSON Parse error: "),
        (PREDICT, b'{"instances": [' + b"1" * 10_000 + b"]}", 400, "JSON Parse error: "),
        (PREDICT, b"[1]", 400, "JSON Value: [1] Is not object"),
        (PREDICT, {"signature_name": 1}, 400, "JSON Value: "),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"inputs": 1, "instances": [1]}, 400, "JSON Value: "),
        (PREDICT, {**DOUBLE, "instances": 1}, 400, "JSON Value: "),
        (PREDICT, {**DOUBLE, "instances": []}, 400, "JSON Value: "),
        (PREDICT, {"instances": [["item-1"]]}, 400, "instances is a plain list, but expecting "),
        (
            PREDICT,
            {"instances": [{"history": ["item-1"]}]},
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: {\"history\": "
            '["item-1"]} keys must be equal to: exclude,history',
        ),
        (
            PREDICT,
            {"instances": [{"history": ["a"], "exclude": []}, {"history": [], "exclude": []}]},
            400,
            "Failed to process element: 1 key: history of 'instances' list. Error: "
            "INVALID_ARGUMENT: Expecting tensor size: 1 but got: 0",
        ),
        (
            PREDICT,
            {**DOUBLE, "instances": [{"z": 1.0}]},
            400,
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        (
            PREDICT,
            {**DOUBLE, "instances": [1.0, {"x": 1.0}]},
            400,
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            PREDICT,
            {**DOUBLE, "instances": ["1"]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "1" Type: String is not of expected type: float',
        ),
        (
            PREDICT,
            {"signature_name": "double", "inputs": [16777217]},
            400,
            "Cannot convert JSON value: 16777217 to float without loss of precision.",
        ),
        (
            PREDICT,
            {"signature_name": "double", "inputs": [[1.0], 2.0]},
            400,
            "JSON Value: 2.0 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            PREDICT,
            {"signature_name": "double", "inputs": [[1.0], [2.0, 3.0]]},
            400,
            "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            PREDICT,
            {"inputs": {"history": [["item-1"]]}},
            400,
            "Missing named input: exclude in 'inputs' object.",
        ),
        (PREDICT, {"inputs": {"history": [[1]], "exclude": []}}, 400, "JSON Value: 1 Type: Number"),
        (
            PREDICT,
            {"inputs": {"history": [[{"b64": "?"}]], "exclude": []}},
            400,
            "Unable to base64 decode",
        ),
        (
            PREDICT,
            {"inputs": {"history": [["\ud800"]], "exclude": [[]]}},
            400,
            "JSON Parse error: The surrogate pair in string is invalid.",
        ),
        (
            PREDICT,
            {"signature_name": "no", "instances": [1]},
            400,
            'Serving signature name: "no" not found in signature def',
        ),
        (
            PREDICT,
            {"signature_name": "add", "inputs": {"a": [1, 2], "b": [1, 2, 3]}},
            400,
            "Incomp",
        ),
        ("/v1/models/no:predict", DOUBLE, 404, "Servable not found for request: Latest(no)"),
        (
            "/v1/models/recommender/versions/9:predict",
            DOUBLE,
            404,
            "Servable not found for request: Specific(recommender, 9)",
        ),
        (
            "/v1/models/recommender/versions/99999999999999999999:predict",
            DOUBLE,
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
        ),
        (
            "/v1/models/recommender/labels/a%20b:predict",
            DOUBLE,
            400,
            "Unrecognized servable version label: a b",
        ),
        (
            "/v1/models/recommender:explain",
            DOUBLE,
            400,
            "Malformed request: POST /v1/models/recommender:explain",
        ),
        ("/v2/models", DOUBLE, 404, "Not found: /v2/models"),
        (
            "/v1/models/dtypes:predict",
            {"signature_name": "half", "instances": [1.0]},
            400,
            "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion "
            "of JSON Value: 1.0 to type: half",
        ),
    ],
)
def test_refusals(server, path, document, status, text):
    found, answer = post(server, document, path)
    assert found == status
    assert answer["error"].startswith(text)
    assert len(answer["error"].encode()) < 1100


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(server, method):
    found = ask(server, method, "/v1/models/recommender")
    assert found == (400, {"error": f"Malformed request: {method} /v1/models/recommender"})


def test_a_body_beyond_the_limit(server):
    status, answer = post(server, b" " * 1_000_001)
    assert status == 413
    assert answer["error"] == "the body has 1000001 bytes, at most 1000000 are accepted"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "gzip"}, 415),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "1" * 30}, 400),
    ],
)
def test_bodies_that_are_not_read(server, headers, status):
    assert ask(server, "POST", PREDICT, headers=headers)[0] == status


def raw(server, data, shut=False):
    host, port = server.rest_target.split(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while block := connection.recv(65536):
            found += block
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
        b"GET\r\n\r\n",
        b"BREW /v1/models HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_no_http(server, data):
    found = raw(server, data)
    assert b"HTTP/1.1 4" in found or b"HTTP/1.1 5" in found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]
    assert post(server, DOUBLE)[0] == 200


def test_half_a_body_and_gone(server):
    head = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode()
    assert raw(server, head, shut=True) == b""
    assert post(server, DOUBLE)[0] == 200


def test_several_requests_on_one_connection(server):
    connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
    for number in range(3):
        connection.request("POST", PREDICT, json.dumps({**DOUBLE, "instances": [number]}))
        answer = json.loads(connection.getresponse().read())
        assert answer == {"predictions": [2.0 * number]}
    connection.close()


def test_clients_that_stall_hold_nobody_up_and_are_ended(server):
    """More of them than requests are worked on at a time; their time is over after 4 seconds."""
    host, port = server.rest_target.split(":")
    stalled = [socket.create_connection((host, int(port)), TIMEOUT) for _ in range(60)]
    heads = [b"", b"POST ", f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 9\r\n\r\n".encode()]
    for number, connection in enumerate(stalled):
        connection.sendall(heads[number % 3])
    for _ in range(3):
        assert post(server, DOUBLE) == (200, {"predictions": [2.0]})
    for number, connection in enumerate(stalled):
        found = connection.recv(65536)
        assert found == b"" or (number % 3 == 2 and b"408" in found.splitlines()[0])
        connection.close()


def test_a_client_that_drips_is_ended(server, wait_for):
    """Each byte comes in time, the request as a whole does not."""
    host, port = server.rest_target.split(":")
    with socket.create_connection((host, int(port)), 0.2) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\n".encode())

        def ended() -> bool:
            try:
                connection.sendall(b"a")
                return connection.recv(65536) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for(ended)


def test_200_connections(server):
    barrier = threading.Barrier(200)
    outcomes = []

    def work() -> None:
        connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
        connection.connect()
        barrier.wait(TIMEOUT)
        connection.request("POST", PREDICT, json.dumps(DOUBLE))
        outcomes.append(connection.getresponse().read())
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(outcomes) == 200
    assert {json.loads(outcome)["predictions"][0] for outcome in outcomes} == {2.0}


def test_sigterm_lets_a_request_under_way_finish(base_path, tmp_path, wait_for):
    started, release = tmp_path / "started", tmp_path / "release"
    inputs = {"started": str(started), "release": str(release)}
    document = {"signature_name": "hold", "inputs": inputs}
    outcome = []
    with ServerProcess(base_path, rest=True, stop_timeout=60.0) as server:
        idle = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
        idle.request("GET", "/v1/models/recommender")
        assert idle.getresponse().read()
        asker = threading.Thread(target=lambda: outcome.append(post(server, document)))
        asker.start()
        wait_for(started.exists)
        os.kill(server.pid, signal.SIGTERM)

        def refuses_new_connections() -> bool:
            host, port = server.rest_target.split(":")
            try:
                socket.create_connection((host, int(port)), 1.0).close()
            except OSError:
                return True
            return False

        wait_for(refuses_new_connections)
        assert server.exit_code is None
        release.touch()
        asker.join()
        assert outcome[0][0] == 200
        assert set(outcome[0][1]) == {"outputs"}
        wait_for(lambda: server.exit_code is not None)
        assert server.exit_code == 0
        idle.close()


def test_floats_are_written_as_short_as_they_read_back():
    proto = tf.make_tensor_proto(np.array([0.1, 1 / 3, 1e-7, 16777216], np.float32))
    typed = type(proto)(dtype=proto.dtype, tensor_shape=proto.tensor_shape)
    typed.float_val.extend(tf.make_ndarray(proto).tolist())
    written = json_tensors.write_outputs({"y": typed}, rows=False)["outputs"]
    assert [repr(value) for value in written] == ["0.1", "0.33333334", "1e-07", "16777216.0"]
