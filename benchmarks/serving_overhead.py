"""Measures what the development server adds to a call of the model and to gRPC itself.

    .venv/bin/python -m benchmarks.serving_overhead --json benchmarks/results/serving-overhead.json

One run measures, in turns and many times, three things: the call of `serving_default` in this
process; a server that does nothing but hand back an answer of the same size (the floor of Python's
gRPC); and the development server. The cost of a request is the processor time of the process that
answers it, which other programs on the machine disturb less than the latency; both are printed. The
goal: server <= 1.25 x (call in process + floor).

The call in process is measured in two ways: as a user makes it (`tf.saved_model.load`, tensors in,
numpy out), and as the server makes it (`serving.development_server.session_call`); each with the
pause between two calls that gRPC leaves between two requests.
"""

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import click
import grpc

GOAL = 1.25
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_TICKS = os.sysconf("SC_CLK_TCK")


@click.command(help=__doc__)
@click.option("--items", default=10_000, show_default=True, help="Items of the random model.")
@click.option("--history", "length", default=20, show_default=True, help="Items of a history.")
@click.option("--requests", default=200, show_default=True, help="Requests in a turn.")
@click.option("--turns", default=20, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where the figures go.")
def main(items: int, length: int, requests: int, turns: int, out: Path | None) -> None:
    """Measures and prints."""
    # A model of the real architecture; its weights make no difference to what a call costs.
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        names = _export(base / "1", items)
        history = [names[(37 * number) % items] for number in range(length)]
        found = _measure(base, history, requests, turns)
    expected = {name: found[name] for name in ("function", "session")}
    result: dict[str, Any] = {
        "items": items,
        "history": length,
        "requests": requests * turns,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "microseconds": found,
        "ratios": {
            f"{kind}_over_{name}_plus_floor": round(
                found["server"][kind] / (call[kind] + found["floor"][kind]), 3
            )
            for name, call in expected.items()
            for kind in ("processor", "latency")
        },
    }
    print(f"{'microseconds a request':32}{'processor':>12}{'latency p50':>14}")
    for name, text in (
        ("function", "call in process, as users do"),
        ("session", "call in process, as the server"),
        ("floor", "gRPC that does nothing"),
        ("server", "development server"),
    ):
        print(f"{text:32}{found[name]['processor']:12.0f}{found[name]['latency']:14.0f}")
    for name, ratio in result["ratios"].items():
        verdict = "within the goal" if ratio <= GOAL else "above the goal"
        print(f"{name:44}{ratio:6.2f}  ({verdict}: {GOAL})")
    print(f"load average {result['load_average']:.1f} on {result['cores']} cores")
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


def _measure(base: Path, history: list[str], requests: int, turns: int) -> dict[str, Any]:
    import bivrec_tf  # noqa: F401 - selects Keras 2

    # isort: split
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    from serving.development_server.servable import Servable
    from serving.process import ServerProcess

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    request.inputs["history"].CopyFrom(tf.make_tensor_proto([history]))
    request.inputs["exclude"].CopyFrom(tf.make_tensor_proto([], tf.string, shape=[1, 0]))
    message = request.SerializeToString()

    loaded = tf.saved_model.load(str(base / "1"))
    function = loaded.signatures["serving_default"]

    def call_function() -> None:
        outputs = function(
            history=tf.constant([history]), exclude=tf.constant([], tf.string, shape=[1, 0])
        )
        for tensor in outputs.values():
            tensor.numpy()

    servable = Servable(base / "1", 1)
    signature = servable.signature_defs["serving_default"]
    fetches = [info.name for _, info in sorted(signature.outputs.items())]
    texts = [item.encode() for item in history]

    def call_session() -> None:
        values = np.array([texts], object)
        feeds = {
            signature.inputs["history"].name: values,
            signature.inputs["exclude"].name: np.empty([1, 0], object),
        }
        servable.run(feeds, fetches)

    with ServerProcess(base, poll_seconds=0) as server:
        with grpc.insecure_channel(server.target) as channel:
            answer = channel.unary_unary(_PREDICT)(message, timeout=60)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        floor = context.Process(target=_serve_nothing, args=(theirs, answer), daemon=True)
        floor.start()
        floor_target = f"127.0.0.1:{ours.recv()}"
        with (
            grpc.insecure_channel(server.target) as server_channel,
            grpc.insecure_channel(floor_target) as floor_channel,
        ):
            ask_server = server_channel.unary_unary(_PREDICT)
            ask_floor = floor_channel.unary_unary(_PREDICT)
            assert server.pid is not None and floor.pid is not None
            # Caches and TensorFlow's threads go cold between two requests of a server. A call in
            # process that follows the one before at once is not what it could do instead.
            pause = statistics.median(_seconds(lambda: ask_floor(message)) for _ in range(requests))
            measures: dict[str, tuple[int, Callable[[], object]]] = {
                "function": (os.getpid(), call_function),
                "session": (os.getpid(), call_session),
                "floor": (floor.pid, lambda: ask_floor(message, timeout=60)),
                "server": (server.pid, lambda: ask_server(message, timeout=60)),
            }
            for _, call in measures.values():
                for _ in range(requests):
                    call()
            seconds: dict[str, list[float]] = {name: [] for name in measures}
            processor = dict.fromkeys(measures, 0.0)
            for _ in range(turns):
                for name, (pid, call) in measures.items():
                    before = _processor_seconds(pid)
                    for _ in range(requests):
                        if pid == os.getpid():
                            time.sleep(pause)
                        seconds[name].append(_seconds(call))
                    processor[name] += _processor_seconds(pid) - before
        floor.terminate()
        floor.join()
    return {
        name: {
            "processor": round(1e6 * processor[name] / (requests * turns), 1),
            "latency": round(1e6 * statistics.median(seconds[name]), 1),
        }
        for name in measures
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _serve_nothing(pipe: Any, answer: bytes) -> None:
    """Answers every request with `answer`, from a server set up as ours is."""
    server = grpc.server(futures.ThreadPoolExecutor(1000))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

    class Everything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: object) -> grpc.RpcMethodHandler:
            return handler

    server.add_generic_rpc_handlers((Everything(),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _export(directory: Path, items: int) -> list[str]:
    """Exports a model with random weights; returns its items."""
    import bivrec_tf  # noqa: F401 - selects Keras 2

    # isort: split
    import numpy as np

    from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
    from bivrec_tf.config import ModelConfig
    from bivrec_tf.export import export
    from bivrec_tf.models import BiVRec

    names = [f"{number}" for number in range(1, items + 1)]
    content = np.random.default_rng(0).normal(size=(items, 64)).astype(np.float32)
    features = [ItemFeatures(name, {"text": row}) for name, row in zip(names, content, strict=True)]
    catalogue = ItemCatalogue.build(names, range(items, 0, -1), features)
    model = BiVRec(ModelConfig(dimension=64, max_history=50, num_interests=4), catalogue)
    model.build_variables()
    export(model, directory, encoders={"text": {"encoder": "none", "fingerprint": "none"}})
    return names


if __name__ == "__main__":
    main()
