"""Two clients that nobody here wrote get real answers: each in a virtual environment of its own."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from serving.client import RecommenderClient

SCRIPT = Path(__file__).with_name("foreign_clients.py")
# min-tfs-client brings generated code of its own, which overwrites that of TensorFlow.
PACKAGES = {
    "ovmsclient": ["ovmsclient==2023.1"],
    "min-tfs-client": ["min-tfs-client==1.0.2", "protobuf==3.20.3"],
}
REFUSED = "Servable not found for request: {}"


@pytest.fixture(scope="module")
def own_answer(server):
    with RecommenderClient(server.target, timeout=60.0) as client:
        inputs = {"history": [["item-1", "item-2"]], "exclude": [["item-3"]]}
        answer = client.predict("serving_default", inputs)
    items = [text.decode() for text in answer["item_ids"][0]]
    return {"items": items, "scores": answer["scores"][0].tolist()}


def install(directory: Path, packages: list[str]) -> Path:
    """Returns the interpreter of a new environment with the packages, or skips the test."""
    venv.create(directory)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    # No building from source: a machine without wheels for them is not what is tested.
    pip += ["--only-binary", ":all:", "--no-compile", "--disable-pip-version-check"]
    try:
        finished = subprocess.run([*pip, *packages], capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package registry was too slow for {', '.join(packages)}")
    if finished.returncode != 0:
        reason = finished.stderr.strip().splitlines()[-1:]
        pytest.skip(f"cannot install {', '.join(packages)} from the package registry: {reason}")
    return python


def answers(server, directory, client):
    python = install(directory, PACKAGES[client])
    command = [python, SCRIPT, client, server.target, server.rest_target, "recommender", "7"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240, env={})
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.slow
def test_ovmsclient(server, own_answer, tmp_path):
    found = answers(server, tmp_path, "ovmsclient")
    assert set(found) == {"grpc", "rest"}
    for answer in found.values():
        assert {name: answer[name] for name in own_answer} == own_answer
        assert answer["inputs"] == ["exclude", "history"]
        assert answer["state"] == "AVAILABLE"
        assert answer["refusal"].startswith("ModelNotFoundError: ")
        assert REFUSED.format("Specific(other, 7)") in answer["refusal"]


@pytest.mark.slow
def test_min_tfs_client(server, own_answer, tmp_path):
    answer = answers(server, tmp_path, "min-tfs-client")["grpc"]
    assert {name: answer[name] for name in own_answer} == own_answer
    assert answer["refusal"] == f"NOT_FOUND: {REFUSED.format('Latest(other)')}"
