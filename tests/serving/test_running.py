"""How a version is run: the fast call and its fallback, warm-up requests, requests put together."""

import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from bivrec_contract.errors import ConfigError
from serving.client import RecommenderClient
from serving.development_server.batching import Batcher, BatchingParameters
from serving.development_server.command_line import parse
from serving.development_server.loading import Loader
from serving.development_server.options import server_from_options
from serving.development_server.servable import LoadError, Servable
from serving.development_server.session_call import SessionCall
from serving.development_server.status import StatusError
from serving.process import ServerProcess
from serving.warm_up import WARM_UP_FILE, read_warm_up_requests, write_warm_up_requests

LIMIT = 2**20


# --- The call ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servable(exports):
    return Servable(exports[1.0], 1)


def test_the_fast_call_and_the_public_one_agree(servable):
    signature = servable.signature_defs["serving_default"]
    names = [info.name for info in (*signature.inputs.values(), *signature.outputs.values())]
    fast, public = (SessionCall(servable._session, names, private) for private in (True, False))
    assert fast.is_private, "this TensorFlow has no private call any more: see session_call.py"
    assert not public.is_private
    feeds = {
        signature.inputs["history"].name: np.array([[b"item-1", b""], [b"item-2", b"?"]], object),
        signature.inputs["exclude"].name: np.zeros([2, 0], object),
    }
    fetches = [info.name for _, info in sorted(signature.outputs.items())]
    for one, other in zip(fast(feeds, fetches), public(feeds, fetches), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    wrong = {**feeds, signature.inputs["exclude"].name: np.array([b""] * 3, object)}
    for call in (fast, public):
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(wrong, fetches)


def test_the_call_agrees_with_the_saved_models_own_function(servable, exports):
    function = tf.saved_model.load(str(exports[1.0])).signatures["serving_default"]
    history = np.array([[b"item-4", b"item-5"]], object)
    own = function(history=tf.constant(history), exclude=tf.constant([["item-0"]]))
    signature = servable.signature_defs["serving_default"]
    feeds = {
        signature.inputs["history"].name: history,
        signature.inputs["exclude"].name: np.array([[b"item-0"]], object),
    }
    for name, info in signature.outputs.items():
        (found,) = servable.run(feeds, [info.name])
        np.testing.assert_array_equal(found, own[name].numpy())


# --- Warm-up -------------------------------------------------------------------------------------


@pytest.fixture
def version(exports, tmp_path):
    return shutil.copytree(exports[1.0], tmp_path / "models" / "1")


def test_warm_up_requests_are_run_before_a_version_is_served(version, caplog):
    caplog.set_level("INFO")
    requests = [("double", {"x": [1.0]}), ("add", {"a": [1.0], "b": [2.0]})]
    path = write_warm_up_requests(version, "recommender", requests)
    assert path == str(version / "assets.extra" / "tf_serving_warmup_requests")
    # As TensorFlow Serving's documentation says: a TFRecord of PredictionLog.
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    assert [log.predict_log.request.model_spec.signature_name for log in logs] == ["double", "add"]
    assert list(read_warm_up_requests(version)) == logs
    Loader(LIMIT)("recommender", version, 1)
    assert "recommender version 1: 2 warm-up requests in" in caplog.text


def test_a_version_whose_warm_up_fails_is_not_served(version, exports):
    shutil.copytree(exports[2.0], version.parent / "2")
    write_warm_up_requests(version.parent / "2", "recommender", [("no", {"x": [1.0]})])
    with (
        ServerProcess(version.parent) as server,
        RecommenderClient(server.target, timeout=60.0) as client,
    ):
        assert server.version == 1
        states = {status.version: status for status in client.status()}
        assert (states[1].state, states[2].state) == ("AVAILABLE", "END")
        text = "warm-up request 0 failed: FAILED_PRECONDITION: Serving signature key"
        assert text in states[2].error
    assert Loader(LIMIT, warm_up=False)("recommender", version.parent / "2", 2).version == 2


def damaged(path):
    path.write_bytes(path.read_bytes()[:-3] + b"\xff\xff\xff")


def no_record(path):
    path.write_bytes(b"no record" * 9)


def no_message(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff")


def too_many(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(1001):
            writer.write(prediction_log_pb2.PredictionLog().SerializeToString())


def a_directory(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (damaged, "Please verify your warmup data is in TFRecord format."),
        (no_record, "Please verify your warmup data is in TFRecord format."),
        (no_message, "Failed to parse warmup record 0"),
        (too_many, r"Number of warmup records exceeds the maximum \(1000\)"),
        (a_directory, "warm-up request 0 failed: "),
    ],
)
def test_warm_up_files_that_are_wrong(version, damage, text):
    write_warm_up_requests(version, "recommender", [("double", {"x": [1.0]})])
    damage(version / WARM_UP_FILE)
    with pytest.raises(LoadError, match=text):
        Loader(LIMIT)("recommender", version, 1)


def test_what_cannot_be_written_as_warm_up(version, tmp_path):
    with pytest.raises(ValueError, match="1001 warm-up requests: there must be 1 to 1000"):
        write_warm_up_requests(version, "recommender", [("double", {"x": [1.0]})] * 1001)
    with pytest.raises(ValueError, match="0 warm-up requests"):
        write_warm_up_requests(version, "recommender", [])
    with pytest.raises(ValueError, match="input 'x' of 'double' is not a tensor"):
        write_warm_up_requests(version, "recommender", [("double", {"x": [[1.0], [1.0, 2.0]]})])
    with pytest.raises(FileNotFoundError, match="is it a version's folder"):
        write_warm_up_requests(tmp_path, "recommender", [("double", {"x": [1.0]})])
    assert not (version / "assets.extra").exists()


# --- Batching ------------------------------------------------------------------------------------


class Doubling:
    """Stands for a loaded version and notes what it is run with."""

    def __init__(self):
        self.sizes = []
        self.feeds = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, feeds, fetches):
        self.gate.wait(60)
        self.sizes.append(len(feeds["x"]))
        self.feeds.append(feeds["x"])
        if np.any(feeds["x"] == -1):
            raise StatusError(None, "the model fails")
        if list(fetches) == ["scalar"]:
            return [np.float32(1)]
        return [2 * feeds["x"]]


def run_together(run, arrays, fetches=("y",)):
    """Runs all at the same time; returns answers and exceptions in the order of `arrays`."""
    found = [None] * len(arrays)

    def ask(number):
        try:
            (found[number],) = run({"x": arrays[number]}, list(fetches))
        except Exception as error:
            found[number] = error

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(arrays))]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    return found


@pytest.fixture
def batched():
    batchers = []

    def make(model, **parameters):
        defaults = {"threads": 1, "timeout_seconds": 60.0, "max_batch_size": 4}
        batcher = Batcher(BatchingParameters(**{**defaults, **parameters}))
        batchers.append(batcher)
        return batcher.wrap(model)

    yield make
    for batcher in batchers:
        batcher.stop()


def column(*values):
    return np.array(values, np.float32)


def test_requests_are_put_together_and_taken_apart(batched):
    model = Doubling()
    arrays = [column(1), column(2), column(3), column(4)]
    found = run_together(batched(model), arrays)
    assert [answer.tolist() for answer in found] == [[2], [4], [6], [8]]
    assert model.sizes == [4]


def test_a_batch_does_not_wait_longer_than_the_time(batched):
    model = Doubling()
    (found,) = run_together(batched(model, timeout_seconds=0.01), [column(1, 2)])
    assert found.tolist() == [2, 4]


def test_batches_are_filled_up_to_an_allowed_size(batched):
    model = Doubling()
    run = batched(model, allowed_sizes=(3, 4), timeout_seconds=0.01)
    (found,) = run_together(run, [column(1, 2)])
    assert found.tolist() == [2, 4]
    assert model.feeds[0].tolist() == [1, 2, 1]


def test_lengths_that_differ(batched):
    arrays = [np.full([2, 1], 5, np.float32), np.full([2, 3], 7, np.float32)]
    for error in run_together(batched(Doubling()), arrays):
        assert "have different shapes and padding is turned off" in error.message
    model = Doubling()
    padded, whole = run_together(batched(model, pad=True), arrays)
    # TensorFlow Serving pads with the tensor's first element, and gives the padding back too.
    assert padded.tolist() == [[10, 10, 10]] * 2
    assert whole.tolist() == [[14, 14, 14]] * 2


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (column(1, 2, 3, 4, 5), "Task size 5 is larger than maximum input batch size 4"),
        (np.float32(1), "Batching Run() input tensors must have at least one dimension"),
    ],
)
def test_what_cannot_be_put_together(batched, array, text):
    (error,) = run_together(batched(Doubling()), [np.asarray(array)])
    assert error.message == text


def test_a_failure_reaches_every_request_of_its_batch_and_no_other(batched):
    model = Doubling()
    run = batched(model, max_batch_size=2)
    errors = run_together(run, [column(-1), column(1)])
    assert [str(error) for error in errors] == ["the model fails"] * 2
    assert run_together(run, [column(3), column(4)])[0] is not None
    (error,) = run_together(run, [column(1, 2)], fetches=["scalar"])
    assert error.message == "Batched output tensor has 0 dimensions"


def test_a_queue_that_is_full_refuses(batched, wait_for):
    model = Doubling()
    model.gate.clear()
    run = batched(model, max_batch_size=1, max_enqueued_batches=2)
    askers = []
    found = []
    for _ in range(8):

        def ask():
            try:
                found.append(run({"x": column(1)}, ["y"]))
            except StatusError as error:
                found.append(error.message)

        askers.append(threading.Thread(target=ask))
        askers[-1].start()
    wait_for(lambda: len(found) == 5)  # One runs, two wait, the others are refused at once.
    model.gate.set()
    for asker in askers:
        asker.join(60)
    refused = [each for each in found if isinstance(each, str)]
    assert len(refused) == 5
    assert set(refused) == {"The batch scheduling queue to which this task was submitted is full"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be at least 1, not 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be at least 0, not -1"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "the last of allowed_batch_sizes must be max_batch_size, 8, not 4",
        ),
        (
            "max_batch_size { value: 4 } allowed_batch_sizes: 4 allowed_batch_sizes: 4",
            r"allowed_batch_sizes must increase, and are \[4, 4\]",
        ),
        ("max_batch_size: 8", "is not a BatchingParameters in text form"),
    ],
)
def test_batching_parameters_that_are_wrong(tmp_path, text, expected):
    path = tmp_path / "batching.config"
    path.write_text(text)
    arguments = ["--model_base_path", str(tmp_path), "--enable_batching"]
    with pytest.raises(ConfigError, match=expected):
        server_from_options(parse([*arguments, "--batching_parameters_file", str(path)]))


def test_a_server_that_batches(base_path, tmp_path):
    path = tmp_path / "batching.config"
    path.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 5000 }")
    arguments = ["--enable_batching=true", "--batching_parameters_file", str(path)]
    outcomes: list[float] = []
    with (
        ServerProcess(base_path, arguments=arguments) as server,
        RecommenderClient(server.target, timeout=60.0) as client,
    ):

        def ask(number: int) -> None:
            for _ in range(20):
                (found,) = client.predict("double", {"x": [float(number)]})["y"].tolist()
                outcomes.append(found - 2 * number)

        askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert outcomes == [0.0] * 160
        with pytest.raises(ValueError, match="must have at least one dimension"):
            client.recommend(["item-1"])


def test_monitoring_and_ssl_files_that_are_wrong(tmp_path):
    path = tmp_path / "a.config"
    base = ["--model_base_path", str(tmp_path)]
    path.write_text('server_key: "x" server_cert: "y"')
    with pytest.raises(ConfigError, match="server_key must be a PEM text"):
        server_from_options(parse([*base, "--ssl_config_file", str(path)]))
    pem = "-----BEGIN X-----"
    path.write_text(f'server_key: "{pem}" server_cert: "{pem}" client_verify: true')
    with pytest.raises(ConfigError, match="client_verify needs custom_ca"):
        server_from_options(parse([*base, "--ssl_config_file", str(path)]))
    path.write_text("enable: true")
    with pytest.raises(
        ConfigError, match="is not a MonitoringConfig in text form: line:column 1:1"
    ):
        monitoring = ["--monitoring_config_file", str(path), "--rest_api_port", "any"]
        server_from_options(parse([*base, *monitoring]))
