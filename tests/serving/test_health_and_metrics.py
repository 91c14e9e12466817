"""What probes and Prometheus see."""

import http.client
import os
import re
import signal
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.process import ServerProcess

TIMEOUT = 60.0
PATH = "/monitoring/prometheus/metrics"


@pytest.fixture
def monitored(base_path, tmp_path):
    config = tmp_path / "monitoring.config"
    config.write_text(f'prometheus_config {{ enable: true path: "{PATH}" }}')
    arguments = ["--monitoring_config_file", str(config)]
    with ServerProcess(base_path, rest=True, arguments=arguments) as process:
        yield process


def get(server, path):
    connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def post(server, body, path="/v1/models/recommender:predict"):
    connection = http.client.HTTPConnection(server.rest_target, timeout=TIMEOUT)
    connection.request("POST", path, body)
    connection.getresponse().read()
    connection.close()


def predict(stub, name="recommender", signature="double", x=(1.0,)):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(x, np.float32)))
    try:
        stub.Predict(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def samples(page):
    found = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            # The format of Prometheus' own documentation.
            match = re.fullmatch(
                r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-zA-Z_]+="(?:[^"\\]|\\.)*",?)*)\} (\S+)', line
            )
            assert match, line
            found[match[1], match[2]] = float(match[3])
    return found


@pytest.mark.slow
def test_metrics_count_what_was_answered(monitored):
    with grpc.insecure_channel(monitored.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(3):
            assert predict(stub) is grpc.StatusCode.OK
        assert predict(stub, signature="no") is grpc.StatusCode.FAILED_PRECONDITION
        for name in ("other", 'quo"te', "\n"):
            assert predict(stub, name=name) is grpc.StatusCode.NOT_FOUND
        malformed = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            malformed(b"\xff\xff\xff", timeout=TIMEOUT)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
    post(monitored, b'{"signature_name": "double", "instances": [1.0]}')
    post(monitored, b"{")
    post(monitored, b"{}", "/v1/models/nobody:classify")

    status, page = get(monitored, PATH)
    assert status == 200
    found = samples(page)
    count = ":tensorflow:serving:request_count"
    assert found[count, 'model_name="recommender",status="OK"'] == 4
    assert found[count, 'model_name="recommender",status="FAILED_PRECONDITION"'] == 1
    assert found[count, 'model_name="recommender",status="INVALID_ARGUMENT"'] == 1
    # Names that are not served share one line: clients cannot grow the page.
    assert found[count, 'model_name="(not served)",status="NOT_FOUND"'] == 3
    assert sum(value for (name, _), value in found.items() if name == count) == 10
    assert found[":bivrec:serving:malformed_request_count", 'entrypoint="GRPC"'] == 1
    labels = 'model_name="recommender",API="Predict",entrypoint="{}"'
    latency = ":tensorflow:serving:request_latency"
    assert found[f"{latency}_count", labels.format("GRPC")] == 3
    assert found[f"{latency}_count", labels.format("REST")] == 1
    assert found[f"{latency}_bucket", labels.format("GRPC") + ',le="+Inf"'] == 3
    buckets = [value for (name, text), value in found.items() if "GRPC" in text and "le=" in text]
    assert buckets == sorted(buckets)
    assert found[f"{latency}_sum", labels.format("GRPC")] > 0
    assert f"# TYPE {count} counter" in page.splitlines()
    assert "Traceback" not in monitored.log()


@pytest.fixture
def health(server):
    with grpc.insecure_channel(server.target) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def test_health(health):
    request = health_pb2.HealthCheckRequest()
    assert health.Check(request, timeout=TIMEOUT).status == health_pb2.HealthCheckResponse.SERVING
    request.service = "no.such.Service"
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(request, timeout=TIMEOUT)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watchers_take_no_place_of_requests(health, prediction_stub):
    watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(50)]
    for watch in watches:
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert predict(prediction_stub) is grpc.StatusCode.OK
    for watch in watches:
        watch.cancel()


def test_calls_that_never_send_their_request_take_no_place(server, prediction_stub):
    """More of them than requests are worked on at a time."""
    release = threading.Event()

    def nothing():
        release.wait()
        yield b""

    with grpc.insecure_channel(server.target) as channel:
        stalled = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [stalled.future(nothing()) for _ in range(50)]
        for _ in range(3):
            assert predict(prediction_stub) is grpc.StatusCode.OK
        for call in calls:
            call.cancel()
        release.set()


def test_watchers_hear_of_the_end(base_path, tmp_path, wait_for):
    started, release = tmp_path / "started", tmp_path / "release"
    with (
        ServerProcess(base_path, stop_timeout=60.0) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        # A request under way keeps the server there, so that there is time to hear it.
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "recommender"
        request.model_spec.signature_name = "hold"
        for name, path in (("started", started), ("release", release)):
            request.inputs[name].CopyFrom(tf.make_tensor_proto(str(path)))
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        call = stub.Predict.future(request, timeout=TIMEOUT)
        wait_for(started.exists)
        os.kill(server.pid, signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        release.touch()
        assert set(call.result().outputs) == {"looks"}
