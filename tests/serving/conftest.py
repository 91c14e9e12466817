# Chooses Keras 2, and must therefore come before TensorFlow.
import bivrec_tf  # noqa: F401

# isort: split
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.client import RecommenderClient
from serving.process import ServerProcess

ITEMS = [f"item-{number}" for number in range(12)]
NONE = tf.constant([], tf.string)

HISTORY = tf.TensorSpec([None, None], tf.string, name="history")
EXCLUDE = tf.TensorSpec([None, None], tf.string, name="exclude")
UNAVAILABLE = tf.TensorSpec([None], tf.string, name="unavailable")


def _again(path: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Returns the same path, made anew in every turn: what is constant leaves the loop."""
    return tf.strings.join([path, tf.strings.substr(tf.strings.as_string(turn), 0, 0)])


class ToyRecommender(tf.Module):
    """A recommender with the signatures of the real one and nothing to learn.

    The scores are `scale` times a fixed number for each item, so that it shows which version
    has answered.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = tf.Variable(scale)
        self.items = tf.constant(ITEMS)

    @tf.function(
        input_signature=[
            HISTORY,
            EXCLUDE,
            tf.TensorSpec([], tf.int32, name="k"),
            tf.TensorSpec([], tf.float32, name="id_weight"),
            tf.TensorSpec([], tf.bool, name="filter_seen"),
            tf.TensorSpec([], tf.float32, name="diversity"),
            UNAVAILABLE,
        ]
    )
    def recommend(
        self, history, exclude, k, id_weight, filter_seen, diversity=0.0, unavailable=NONE
    ):
        match = history[:, :, tf.newaxis] == self.items
        seen = tf.reduce_any(match, axis=1)
        excluded = tf.reduce_any(exclude[:, :, tf.newaxis] == self.items, axis=1)
        count = tf.range(float(len(ITEMS)))
        views = tf.stack([self.scale * count, self.scale * tf.reverse(count * 3.0, [0])], axis=-1)
        weight = tf.where(id_weight < 0.0, 0.75, id_weight)
        scores = weight * views[:, 0] + (1.0 - weight) * views[:, 1]
        # Enough to show in the answer that the request's diversity has arrived.
        scores += diversity
        off = tf.reduce_any(unavailable[:, tf.newaxis] == self.items, axis=0)
        blocked = excluded | (seen & filter_seen) | off
        masked = tf.where(blocked, -float("inf"), scores)
        best, rows = tf.math.top_k(masked, tf.minimum(k, len(ITEMS)))
        found = best > -float("inf")
        reasons = tf.pad(history, [[0, 0], [0, 3]])[:, tf.newaxis, :3]
        return {
            "item_ids": tf.where(found, tf.gather(self.items, rows), ""),
            "scores": tf.where(found, best, 0.0),
            "interest": tf.where(found, rows % 4, -1),
            "view_scores": tf.gather(views, rows),
            "because": tf.broadcast_to(reasons, [tf.shape(rows)[0], tf.shape(rows)[1], 3]),
            "unknown_items": tf.reduce_sum(
                tf.cast((history != "") & ~tf.reduce_any(match, axis=2), tf.int32), axis=1
            ),
        }

    @tf.function(input_signature=[HISTORY, EXCLUDE])
    def serving_default(self, history, exclude):
        return self.recommend(history, exclude, 5, -1.0, True)

    @tf.function(input_signature=[HISTORY, tf.TensorSpec([None, None], tf.string, name="item_ids")])
    def because(self, history, item_ids):
        shape = tf.concat([tf.shape(item_ids), [3]], axis=0)
        reasons = tf.pad(history, [[0, 0], [0, 3]])[:, tf.newaxis, :3]
        return {
            "because": tf.broadcast_to(reasons, shape),
            "because_weights": tf.broadcast_to(
                tf.where(reasons != "", self.scale * [0.5, 0.25, 0.125], 0.0), shape
            ),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="item_id"),
            tf.TensorSpec([], tf.int32, name="k"),
        ]
    )
    def similar_items(self, item_id, k):
        found = tf.reduce_any(item_id[:, tf.newaxis] == self.items, axis=1)
        shape = [tf.shape(item_id)[0], k]
        scores = tf.broadcast_to(self.scale / tf.range(2.0, 2.0 + tf.cast(k, tf.float32)), shape)
        return {
            "id_item_ids": tf.broadcast_to(self.items[:k], shape),
            "id_scores": scores,
            "mm_item_ids": tf.broadcast_to(self.items[::-1][:k], shape),
            "mm_scores": -scores,
            "unknown_items": tf.cast(~found, tf.int32),
        }

    @tf.function(input_signature=[HISTORY])
    def interests(self, history):
        known = tf.reduce_any(history[:, :, tf.newaxis] == self.items, axis=2)
        rows, length = tf.shape(history)[0], tf.shape(history)[1]
        allocation = tf.cast(tf.range(2 * length), tf.float32)
        allocation = tf.broadcast_to(tf.reshape(allocation, [1, 2, length]), [rows, 2, length])
        return {
            "history_items": tf.where(known, history, ""),
            "id_interests": tf.broadcast_to(
                self.scale * [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], [rows, 2, 3]
            ),
            "id_allocation": allocation,
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="a"),
            tf.TensorSpec([None], tf.float32, name="b"),
        ]
    )
    def add(self, a, b):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(self, x):
        return {"y": 2.0 * x}

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.string, name="started"),
            tf.TensorSpec([], tf.string, name="release"),
        ]
    )
    def hold(self, started, release):
        """Writes the file `started`, then takes until the file `release` exists."""
        # Looking for a file is stateless to TensorFlow: without this nothing says that the loop
        # comes after the writing, and the loop's thread may never get to that.
        with tf.control_dependencies([tf.io.write_file(started, "")]):
            looks = tf.constant(0, tf.int64) + 0
        while tf.size(tf.io.matching_files(_again(release, looks))) == 0:
            looks += 1
        return {"looks": looks}

    def export(self, directory: Path) -> None:
        names = ["recommend", "serving_default", "because", "similar_items", "interests"]
        names += ["add", "double", "hold"]
        signatures = {name: getattr(self, name) for name in names}
        tf.saved_model.save(self, str(directory), signatures=signatures)
        # tf.saved_model.save cannot write defaults for a function; the file format can.
        path = directory / "saved_model.pb"
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        nothing = tf.make_tensor_proto([], tf.string, shape=[1, 0])
        scalars = {"k": np.int32(5), "id_weight": np.float32(-1.0), "diversity": np.float32(0.0)}
        defaults = {
            "serving_default": {"exclude": nothing},
            "recommend": {
                "exclude": nothing,
                "unavailable": tf.make_tensor_proto([], tf.string, shape=[0]),
                "filter_seen": tf.make_tensor_proto(True),
                **{name: tf.make_tensor_proto(value) for name, value in scalars.items()},
            },
        }
        for name, values in defaults.items():
            signature = saved_model.meta_graphs[0].signature_def[name]
            for key, value in values.items():
                signature.defaults[key].CopyFrom(value)
        path.write_bytes(saved_model.SerializeToString())


@pytest.fixture(scope="session")
def toy_model() -> ToyRecommender:
    return ToyRecommender(scale=1.0)


@pytest.fixture(scope="session")
def exports(toy_model, tmp_path_factory) -> dict[float, Path]:
    """Two exported models by their scale."""
    directory = tmp_path_factory.mktemp("exports")
    models = {1.0: toy_model, 2.0: ToyRecommender(scale=2.0)}
    for scale, model in models.items():
        model.export(directory / str(scale))
    return {scale: directory / str(scale) for scale in models}


@pytest.fixture
def base_path(exports, tmp_path) -> Path:
    """A base path of the test's own, with version 1 of scale 1."""
    base = tmp_path / "models"
    shutil.copytree(exports[1.0], base / "1")
    return base


@pytest.fixture(scope="session")
def server(exports, tmp_path_factory) -> Iterator[ServerProcess]:
    """One server process for all tests that leave it as it is: version 7, zero-padded."""
    base = tmp_path_factory.mktemp("shared")
    shutil.copytree(exports[1.0], base / "0007")
    with ServerProcess(base, rest=True) as process:
        yield process


@pytest.fixture(scope="session")
def client(server) -> Iterator[RecommenderClient]:
    # Far more than any answer takes: a busy machine must not fail a test.
    with RecommenderClient(server.target, timeout=60.0) as client:
        yield client


@pytest.fixture(scope="session")
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@pytest.fixture(scope="session")
def prediction_stub(channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def model_stub(channel) -> model_service_pb2_grpc.ModelServiceStub:
    return model_service_pb2_grpc.ModelServiceStub(channel)


class Proxy(grpc.GenericRpcHandler):
    """Passes every call on to a server, byte for byte, unless a code is due for it first.

    Attributes:
        codes: The codes that the next calls fail with.
        answer: What every call is answered with instead of the server's answer.
        calls: How many calls have arrived.
        peers: The addresses that they came from.
    """

    def __init__(self, target: str):
        self.codes: list[grpc.StatusCode] = []
        self.answer: bytes | None = None
        self.calls = 0
        self.peers: set[str] = set()
        self._channel = grpc.insecure_channel(target)

    def service(self, details):
        forward = self._channel.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            self.peers.add(context.peer())
            if self.codes:
                context.abort(self.codes.pop(0), "by the proxy")
            if self.answer is not None:
                return self.answer
            try:
                return forward(request, timeout=60.0)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def start_proxy(server) -> Iterator[Callable[..., tuple[Proxy, str]]]:
    """Starts a proxy before the shared server, with TLS if there are credentials."""
    servers = []

    def start(credentials: grpc.ServerCredentials | None = None) -> tuple[Proxy, str]:
        proxy = Proxy(server.target)
        listener = grpc.server(futures.ThreadPoolExecutor(8), handlers=[proxy])
        if credentials is None:
            port = listener.add_insecure_port("127.0.0.1:0")
        else:
            port = listener.add_secure_port("127.0.0.1:0", credentials)
        listener.start()
        servers.append(listener)
        return proxy, f"127.0.0.1:{port}"

    yield start
    for listener in servers:
        listener.stop(None)


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition; only a hang of the code under test makes it give up."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "the condition never became true"
            time.sleep(0.02)

    return wait
