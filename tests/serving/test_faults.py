"""Faults while requests are under way: real processes, real sockets, and every failure counted."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import RecommenderClient
from serving.load_report import Sample, summarise
from serving.load_test import run_load
from serving.process import ServerProcess


class Load:
    """Asks a server all the time, in the background, and keeps what was answered by whom."""

    def __init__(self, client: RecommenderClient, rate: float = 100.0):
        self.versions: list[int] = []
        self.seen: list[Sample] = []
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(client, rate))

    def _run(self, client: RecommenderClient, rate: float) -> None:
        def ask(number: int) -> None:
            answer = client.recommend([f"item-{number % 12}"], k=3)
            assert len(answer.items) == 3
            self.versions.append(answer.model_version)

        self.samples = run_load(
            ask,
            workers=4,
            seconds=600.0,
            rate=rate,
            patience=600.0,
            seen=self.seen.append,
            stop=self._stop,
        )

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), "a request hangs"

    def codes(self) -> set[str]:
        return set(summarise(self.samples or list(self.seen)).codes)


@pytest.fixture(scope="module")
def shared_base(exports, tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("faults")
    shutil.copytree(exports[1.0], base / "1")
    return base


@pytest.fixture(scope="module")
def serve(shared_base) -> Iterator[ServerProcess]:
    with ServerProcess(shared_base, poll_seconds=0.1) as process:
        yield process


def appear(base_path, export, version: str) -> None:
    """A version appears as a careful pusher makes it: copied under another name, then renamed."""
    shutil.copytree(export, base_path / f"{version}.incoming")
    os.rename(base_path / f"{version}.incoming", base_path / version)


@pytest.mark.slow
def test_killed_under_load_and_started_again(base_path, wait_for):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with (
        ServerProcess(base_path, port=port) as first,
        RecommenderClient(first.target, timeout=5.0) as client,
        Load(client, rate=50.0) as load,
    ):
        wait_for(lambda: len(load.versions) > 20)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: "UNAVAILABLE" in load.codes())
        with ServerProcess(base_path, port=port):
            answered = len(load.versions)
            # The same client, the same connection object: nobody has to make a new one.
            wait_for(lambda: len(load.versions) > answered + 50)
            assert client.recommend(["item-1"]).model_version == 1
            load.__exit__()
    # What failed, failed with a code that says so; and nothing was lost without one.
    assert {"OK", "UNAVAILABLE"} <= load.codes() <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert summarise(load.samples).codes["OK"] == len(load.versions)
    assert sorted(load.samples, key=lambda sample: sample.start)[-1].code == "OK"


def test_versions_switch_under_load_without_a_failed_request(serve, shared_base, exports, wait_for):
    with (
        RecommenderClient(serve.target, timeout=60.0, retries=None) as client,
        Load(client) as load,
    ):
        for version in (2, 3):
            appear(shared_base, exports[2.0], str(version))
            wait_for(lambda version=version: version in load.versions[-1:])
        # Back again, as in a rollback: the newest folder goes.
        os.rename(shared_base / "3", shared_base / "3.withdrawn")
        wait_for(lambda: load.versions[-1] == 2)
    assert load.codes() == {"OK"}
    assert set(load.versions) == {1, 2, 3}


def test_damaged_versions_under_load_fail_no_request(serve, shared_base, exports, wait_for):
    with (
        RecommenderClient(serve.target, timeout=60.0, retries=None) as client,
        Load(client) as load,
    ):
        wait_for(lambda: len(load.versions) > 20)
        served = load.versions[-1]
        half = shared_base / "12"
        shutil.copytree(exports[2.0], half)
        content = (half / "saved_model.pb").read_bytes()
        (half / "saved_model.pb").write_bytes(content[: len(content) // 2])
        without_variables = shared_base / "13"
        without_variables.mkdir()
        (without_variables / "saved_model.pb").write_bytes(content)
        wait_for(lambda: all(str(path) in serve.log() for path in (half, without_variables)))
        asked = len(load.versions)
        wait_for(lambda: len(load.versions) > asked + 50)
        assert set(load.versions) == {served}
        # The copy goes on, and is served when it is whole.
        (half / "saved_model.pb").write_bytes(content)
        wait_for(lambda: load.versions[-1] == 12)
    assert load.codes() == {"OK"}
    for path in (half, without_variables):
        lines = [line for line in serve.log().splitlines() if str(path) in line]
        assert len(lines) <= 3, lines


def test_a_disk_that_is_full_stops_neither_the_log_nor_the_answers(base_path, exports, wait_for):
    """The log's disk is full, and the copy of a new version ended when the models' disk was."""
    command = [sys.executable, "-m", "serving.development_server", "--port", "0"]
    command += ["--model_base_path", str(base_path), "--file_system_poll_wait_seconds", "0.1"]
    with open("/dev/full", "w") as full:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True)
    try:
        ready = server.stdout.readline()
        assert ready.startswith("READY recommender version=1 port="), ready
        target = f"127.0.0.1:{ready.rpartition('=')[2].strip()}"
        with RecommenderClient(target, timeout=30.0) as client:
            # As a copy that ran out of room leaves it.
            shutil.copytree(exports[2.0], base_path / "2")
            variables = base_path / "2" / "variables" / "variables.data-00000-of-00001"
            os.truncate(variables, 0)
            wait_for(lambda: any(v.version == 2 and v.error for v in client.status()))
            assert client.recommend(["item-1"], k=3).model_version == 1
            # There is room again: the whole version under the next number.
            shutil.copytree(exports[2.0], base_path / "3")
            wait_for(lambda: client.recommend(["item-1"], k=3).model_version == 3)
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
