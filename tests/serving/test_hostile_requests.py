"""Whatever a client sends, the server answers with one of four codes and lives on."""

import collections
import http.client
import os
import threading
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from serving.process import ServerProcess

ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}

# `hold` is not among the signatures: it would write files, and wait.
SIGNATURES = ["", "recommend", "serving_default", "add", "double", "other", "é", "\x00"]
NAMES = ["history", "exclude", "k", "id_weight", "filter_seen", "a", "b", "x", "", "other"]

INTEGERS = {
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "half_val": st.integers(-(2**31), 2**31 - 1),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
}
VALUES = {
    **INTEGERS,
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "scomplex_val": st.floats(width=32),
    "bool_val": st.booleans(),
    "string_val": st.binary(max_size=5) | st.sampled_from([b"item-1", b"item-2"]),
}
DIMENSIONS = st.lists(
    st.integers(-1, 4) | st.sampled_from([2**20, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]),
    max_size=5,
)
DTYPES = st.sampled_from([1, 3, 7, 9, 10]) | st.integers(0, 130) | st.integers(-(2**31), 2**31 - 1)


@st.composite
def tensor_protos(draw) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=draw(DTYPES))
    for size in draw(DIMENSIONS):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.booleans())
    for field in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=2)):
        getattr(proto, field).extend(draw(st.lists(VALUES[field], max_size=6)))
    proto.tensor_content = draw(st.just(b"") | st.binary(max_size=32))
    return proto


@st.composite
def random_requests(draw) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["recommender"] * 4 + ["", "other", "\ud7ff"]))
    request.model_spec.signature_name = draw(st.sampled_from(SIGNATURES))
    choice = draw(st.sampled_from(["", "", "version", "label"]))
    if choice == "version":
        request.model_spec.version.value = draw(st.sampled_from([7, 0, -1, 2**63 - 1]))
    elif choice == "label":
        request.model_spec.version_label = draw(st.text(max_size=5))
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=4)):
        request.inputs[name].CopyFrom(draw(tensor_protos()))
    request.output_filter.extend(draw(st.lists(st.sampled_from(["sum", "y", "no"]), max_size=2)))
    return request


@st.composite
def mangled_requests(draw) -> predict_pb2.PredictRequest:
    """A good request with one input exchanged, and its values or shape now and then changed."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.model_spec.signature_name = "recommend"
    good = {
        "history": tf.make_tensor_proto([["item-1", "item-2"]]),
        "exclude": tf.make_tensor_proto([["item-3"]]),
        "k": tf.make_tensor_proto(3, tf.int32),
        "id_weight": tf.make_tensor_proto(0.5, tf.float32),
        "filter_seen": tf.make_tensor_proto(True),
    }
    for name, proto in good.items():
        request.inputs[name].CopyFrom(proto)
    name = draw(st.sampled_from(sorted(good)))
    proto = draw(tensor_protos())
    if draw(st.booleans()):
        proto.dtype = good[name].dtype
    if draw(st.booleans()):
        proto.tensor_shape.CopyFrom(good[name].tensor_shape)
    request.inputs[name].CopyFrom(proto)
    return request


@settings(deadline=None, max_examples=300)
@given(request_message=random_requests() | mangled_requests())
def test_hostile_requests(prediction_stub, client, request_message):
    try:
        prediction_stub.Predict(request_message, timeout=60.0)
    except grpc.RpcError as error:
        assert error.code() in ALLOWED, f"{error.code()}: {error.details()}"
    assert client.predict("double", {"x": [1.0]})["y"].tolist() == [2.0]


@settings(deadline=None, max_examples=50)
@given(message=st.binary(max_size=200))
def test_bytes_that_are_no_message(channel, client, message):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    # INTERNAL is what gRPC itself answers, in every language, to what it cannot parse.
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=60.0)
    assert caught.value.code() in ALLOWED | {grpc.StatusCode.INTERNAL}
    assert client.predict("double", {"x": [1.0]})["y"].tolist() == [2.0]


def test_a_message_beyond_the_limit(prediction_stub, client):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.inputs["x"].tensor_content = bytes(65 * 2**20)
    with pytest.raises(grpc.RpcError) as caught:
        prediction_stub.Predict(request, timeout=60.0)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.predict("double", {"x": [1.0]})["y"].tolist() == [2.0]


GOOD = predict_pb2.PredictRequest()
GOOD.model_spec.name = "recommender"
GOOD.model_spec.signature_name = "double"
GOOD.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))

BAD_REQUESTS = 10_000
WARM_UP_REQUESTS = 2_000
MOST_GROWTH_BYTES = 20 * 2**20
"""Twice what 10,000 leaked requests of a kilobyte would take; the warm-up fills the pools."""


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def bad_messages() -> list[bytes]:
    """Serialized requests that no server should like, of every kind of wrong."""

    def changed(change) -> bytes:
        request = predict_pb2.PredictRequest()
        request.CopyFrom(GOOD)
        change(request)
        return request.SerializeToString()

    def wrong_shapes(request) -> None:
        request.model_spec.signature_name = "add"
        del request.inputs["x"]
        for name, size in (("a", 10_000), ("b", 10_001)):
            request.inputs[name].CopyFrom(tf.make_tensor_proto([1.0] * size))

    def many_strings(request) -> None:
        request.model_spec.signature_name = "serving_default"
        request.inputs["history"].CopyFrom(tf.make_tensor_proto(["item"] * 20_000))

    huge = "x" * 100_000
    return [
        b"\xff" * 50,
        GOOD.SerializeToString()[:-5],
        b"\x0a" + b"\xff" * 9,
        changed(lambda request: setattr(request.model_spec, "name", huge)),
        changed(lambda request: setattr(request.model_spec, "signature_name", huge)),
        changed(lambda request: setattr(request.model_spec, "version_label", huge)),
        changed(lambda request: request.inputs[huge].CopyFrom(GOOD.inputs["x"])),
        changed(lambda request: request.output_filter.append(huge)),
        changed(lambda request: setattr(request.inputs["x"], "dtype", 7)),
        changed(lambda request: setattr(request.inputs["x"].tensor_shape.dim[0], "size", 2**40)),
        changed(lambda request: setattr(request.inputs["x"], "tensor_content", huge.encode())),
        changed(many_strings),
        changed(wrong_shapes),
    ]


@pytest.mark.slow
def test_no_memory_is_lost_to_bad_requests(server_with_rest):
    """Of every kind in turn, from four clients, over gRPC and over REST."""
    messages = bad_messages()
    bodies = [b"{", b"[" * 5000, b'{"inputs": {"history": [["' + b"x" * 50_000 + b'"]]}}']
    outcomes: collections.Counter[str] = collections.Counter()
    problems: list[Exception] = []

    def send(client_number: int, count: int) -> None:
        host = server_with_rest.rest_target
        connection = http.client.HTTPConnection(host, timeout=60.0)
        try:
            with grpc.insecure_channel(server_with_rest.target) as channel:
                call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
                for number in range(client_number, count, 4):
                    if number % 5 == 0:
                        path = f"/v1/models/{'n' * (number % 1000)}:predict"
                        connection.request("POST", path, bodies[number % len(bodies)])
                        response = connection.getresponse()
                        response.read()
                        outcomes[str(response.status)] += 1
                        continue
                    try:
                        call(messages[number % len(messages)], timeout=60.0)
                        outcomes["OK"] += 1
                    except grpc.RpcError as error:
                        outcomes[error.code().name] += 1
        except Exception as error:
            problems.append(error)
        finally:
            connection.close()

    def send_all(count: int) -> None:
        senders = [threading.Thread(target=send, args=(number, count)) for number in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    send_all(WARM_UP_REQUESTS)
    before = resident_bytes(server_with_rest.pid)
    send_all(BAD_REQUESTS)
    after = resident_bytes(server_with_rest.pid)
    assert problems == []
    assert set(outcomes) == {
        *("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL", "400", "404"),
    }
    assert sum(outcomes.values()) == BAD_REQUESTS + WARM_UP_REQUESTS
    assert after - before < MOST_GROWTH_BYTES, f"grew by {(after - before) / 2**20:.1f} MiB"
    print(f"resident: {before / 2**20:.1f} MiB, {(after - before) / 2**20:+.1f} MiB after")
    assert "Traceback" not in server_with_rest.log()


@pytest.fixture
def server_with_rest(base_path):
    with ServerProcess(base_path, rest=True) as process:
        yield process


def test_200_connections_at_once(server):
    """Each with a channel of its own; the client library would share one."""
    barrier = threading.Barrier(200)
    outcomes: list[object] = []

    def ask() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.target, options) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            grpc.channel_ready_future(channel).result(timeout=120)
            barrier.wait(120)
            try:
                outcomes.append(call(GOOD.SerializeToString(), timeout=120.0))
            except grpc.RpcError as error:
                outcomes.append(error)

    askers = [threading.Thread(target=ask) for _ in range(200)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(outcomes) == 200
    answers = [predict_pb2.PredictResponse.FromString(answer) for answer in outcomes]
    assert {answer.outputs["y"].float_val[0] for answer in answers} == {2.0}
