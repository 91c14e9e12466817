"""The conformance script against this project's server and a really exported recommender."""

import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from serving.client import RecommenderClient
from serving.conformance import main
from serving.process import ServerProcess


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    tf_keras.utils.set_random_seed(1)
    names = [f"item {number}" for number in range(20)]
    items = [
        ItemFeatures(name, {"text": np.random.default_rng(number).normal(size=5)})
        for number, name in enumerate(names)
    ]
    catalogue = ItemCatalogue.build(names, range(20, 0, -1), items)
    model = BiVRec(ModelConfig(dimension=8, max_history=5, num_interests=2), catalogue)
    model.build_variables()
    base = tmp_path_factory.mktemp("exported")
    export(model, base / "1", encoders={"text": {"encoder": "e", "fingerprint": "f"}})
    return base


@pytest.fixture(scope="module")
def recommender(exported):
    with ServerProcess(exported, rest=True) as process:
        yield process


@pytest.mark.slow
def test_our_server_conforms(recommender):
    command = [sys.executable, "-m", "serving.conformance"]
    command += ["--target", recommender.target, "--rest", recommender.rest_target]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = finished.stdout.splitlines()
    assert ", 0 failed" in lines[-1]
    names = {line[6:50].strip() for line in lines[1:-1]}
    # One of each kind: the script must not pass because it has asked nothing.
    assert {
        *("predict", "predict recommend", "wrong shape: the op's own message", "health"),
        *("missing input", "regress a signature of another kind", "REST predict, row format"),
    } <= names
    assert len(names) > 55


class Wrong(http.server.BaseHTTPRequestHandler):
    """Answers everything with success and nothing in it."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"model_version_status": []}).encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass


def test_a_server_that_answers_otherwise_fails(recommender, capsys):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as wrong:
        threading.Thread(target=wrong.serve_forever, daemon=True).start()
        rest = f"127.0.0.1:{wrong.server_port}"
        exit_code = main(["--target", recommender.target, "--rest", rest, "--failures_only"])
        wrong.shutdown()
    assert exit_code == 1
    printed = capsys.readouterr().out
    assert "FAIL  REST status" in printed
    assert "FAIL  REST unknown model" in printed
    assert "expected: 404 Servable not found for request: Latest(no-such-thing)" in printed
    assert "pass" not in printed.replace(" passed", "")


def test_no_server(capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert main(["--target", f"127.0.0.1:{port}", "--timeout", "5"]) == 2
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_a_model_that_is_not_served(recommender, capsys):
    assert main(["--target", recommender.target, "--model_name", "other"]) == 2
    assert "NOT_FOUND: Servable not found for request: Latest(other)" in capsys.readouterr().err


def test_the_served_answer_is_the_models_own(recommender, exported, tmp_path):
    """Over gRPC, over REST in rows and in columns: what the SavedModel itself says."""
    shutil.copytree(exported / "1", tmp_path / "1")
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    history, exclude = [["item 3", "item 7"]], [["item 1"]]
    own = signature(history=tf.constant(history), exclude=tf.constant(exclude))
    with RecommenderClient(recommender.target, timeout=60.0) as client:
        over_grpc = client.predict("serving_default", {"history": history, "exclude": exclude})
    connection = HTTPConnection(recommender.rest_target, timeout=60)
    documents = (
        {"inputs": {"history": history, "exclude": exclude}},
        {"instances": [{"history": history[0], "exclude": exclude[0]}]},
    )
    answers = []
    for document in documents:
        connection.request("POST", "/v1/models/recommender:predict", json.dumps(document))
        answers.append(json.loads(connection.getresponse().read()))
    columns, (row,) = answers[0]["outputs"], answers[1]["predictions"]
    for name, tensor in own.items():
        expected = tensor.numpy()
        if expected.dtype == object:
            np.testing.assert_array_equal(over_grpc[name], expected)
            expected = np.array([text.decode() for text in expected.flat]).reshape(expected.shape)
            np.testing.assert_array_equal(np.array(columns[name]), expected)
        else:
            np.testing.assert_allclose(over_grpc[name], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(columns[name], expected, rtol=1e-5, atol=1e-6)
        assert row[name] == columns[name][0]
