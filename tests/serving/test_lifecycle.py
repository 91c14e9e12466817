"""Start, new versions and end of real server processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving.client import DeadlineExceeded, ModelNotFound, RecommenderClient, ServerUnavailable
from serving.development_server.__main__ import main
from serving.process import ServerProcess, ServerProcessError


def copy_file_by_file(source: Path, destination: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = destination / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


@pytest.mark.slow
def test_new_versions_while_requests_run(base_path, exports, wait_for):
    with ServerProcess(base_path, poll_seconds=0.05) as server:
        seen: list[tuple[int, float]] = []
        problems: list[Exception] = []
        stop = threading.Event()

        def ask_again_and_again() -> None:
            try:
                with RecommenderClient(server.target, timeout=120.0) as client:
                    while not stop.is_set():
                        answer = client.recommend(["item-1"], k=1, id_weight=1.0)
                        seen.append((answer.model_version, answer.items[0].score))
            except Exception as error:
                problems.append(error)

        askers = [threading.Thread(target=ask_again_and_again) for _ in range(3)]
        for asker in askers:
            asker.start()

        # Two folders that cannot be served: half of a copy, and a damaged one.
        shutil.copytree(exports[2.0] / "variables", base_path / "2" / "variables")
        shutil.copytree(exports[2.0], base_path / "3")
        with open(base_path / "3" / "saved_model.pb", "r+b") as file:
            file.truncate(1000)
        wait_for(lambda: "version 2 is skipped" in server.log())
        wait_for(lambda: "version 3 is skipped" in server.log())
        answers_before = len(seen)
        wait_for(lambda: len(seen) > answers_before + 20 or problems)
        assert {version for version, _ in seen} == {1}

        copy_file_by_file(exports[2.0], base_path / "004")
        wait_for(lambda: seen[-1][0] == 4 or problems)
        stop.set()
        for asker in askers:
            asker.join()

        assert problems == []
        assert set(seen) == {(1, 11.0), (4, 22.0)}
        log = server.log()
        assert log.count("version 2 is skipped: no saved_model.pb") == 1
        assert log.count("version 3 is skipped") == 1

        with RecommenderClient(server.target, timeout=60.0) as client:
            states = {status.version: status for status in client.status()}
            assert {number: status.state for number, status in states.items()} == {
                1: "END",
                3: "END",
                4: "AVAILABLE",
            }
            assert "saved_model.pb cannot be read" in states[3].error
        with (
            RecommenderClient(server.target, timeout=60.0, version=1) as client,
            pytest.raises(ModelNotFound, match=r"Specific\(recommender, 1\)"),
        ):
            client.recommend(["item-1"])


@pytest.mark.slow
def test_sigterm_lets_a_request_under_way_finish(base_path, tmp_path, wait_for):
    started, release = tmp_path / "started", tmp_path / "release"
    outcome: list = []
    with ServerProcess(base_path, stop_timeout=60.0) as server:
        client = RecommenderClient(server.target, timeout=120.0)

        def ask() -> None:
            try:
                outcome.append(
                    client.predict("hold", {"started": str(started), "release": str(release)})
                )
            except Exception as error:
                outcome.append(error)

        asker = threading.Thread(target=ask)
        asker.start()
        wait_for(started.exists)
        os.kill(server.pid, signal.SIGTERM)

        def refuses_new_requests() -> bool:
            with RecommenderClient(server.target, timeout=1.0) as newcomer:
                try:
                    newcomer.status()
                except (ServerUnavailable, DeadlineExceeded):
                    return True
            return False

        wait_for(refuses_new_requests)
        assert server.exit_code is None
        assert outcome == []
        release.touch()
        asker.join()
        wait_for(lambda: server.exit_code is not None)

        assert server.exit_code == 0
        assert set(outcome[0]) == {"looks"}
        with pytest.raises(ServerUnavailable):
            client.recommend(["item-1"])
        client.close()
    assert server.stop() == 0


def test_server_does_not_outlive_its_parent(base_path, wait_for):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading, time\n"
            "from serving.process import ServerProcess\n"
            "server = ServerProcess(sys.argv[1])\n"
            "threading.Thread(target=server.start).start()\n"
            "while server.pid is None:\n"
            "    time.sleep(0.01)\n"
            "print(server.pid, flush=True)\n",
            str(base_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        server_pid = int(parent.stdout.readline())
        assert Path(f"/proc/{server_pid}").exists()
        parent.kill()

    def gone() -> bool:
        try:
            status = Path(f"/proc/{server_pid}/stat").read_text()
        except OSError:
            return True
        # An orphan that has ended stays a zombie where nobody collects it.
        return status.rpartition(")")[2].split()[0] == "Z"

    wait_for(gone)


@pytest.mark.slow
def test_damaged_model(base_path):
    path = base_path / "1" / "saved_model.pb"
    path.write_bytes(b"\xff" * 1000)
    server = ServerProcess(base_path)
    with pytest.raises(ServerProcessError) as caught, server:
        pass
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert "error: no version of 'recommender' could be loaded from" in text
    assert "version 1 is skipped" in text
    assert "saved_model.pb cannot be read: DecodeError" in text
    assert "Traceback" not in text
    assert server.exit_code == 3
    assert "saved_model.pb cannot be read" in server.log()


def test_no_such_directory(tmp_path):
    with (
        pytest.raises(ServerProcessError, match="no such directory: .*/nowhere") as caught,
        ServerProcess(tmp_path / "nowhere"),
    ):
        pass
    assert caught.value.exit_code == 2


def test_start_that_takes_too_long(base_path):
    server = ServerProcess(base_path, start_timeout=0.0)
    with pytest.raises(ServerProcessError, match="not ready after 0 seconds") as caught, server:
        pass
    assert caught.value.exit_code is None
    assert server.exit_code == -signal.SIGKILL


def test_server_process_before_its_start(base_path):
    server = ServerProcess(base_path)
    assert server.stop() is None
    assert (server.pid, server.version, server.exit_code, server.log()) == (None, None, None, "")
    with pytest.raises(RuntimeError, match="not started"):
        print(server.target)


def test_second_start_is_refused(server):
    with pytest.raises(RuntimeError, match="only once"):
        server.start()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--model_base_path"),
        (["--model_base_path", "/nowhere"], "no such directory: /nowhere"),
        (["--model_base_path", ".", "--model_name", ""], "--model_name must not be empty"),
        (["--model_base_path", ".", "--port", "65536"], "65536 is not a port: 0 to 65535"),
        (["--model_base_path", ".", "--threads", "0"], "0 is less than 1"),
        (["--model_base_path", ".", "--startup_seconds", "-1"], "not a number of seconds"),
        (["--model_base_path", ".", "--startup_seconds", "nan"], "not a number of seconds"),
        (["--model_base_path", ".", "--max_message_bytes", "9999999999"], "more than 2147483647"),
        (["--model_base_path", ".", "--rest_api", "1"], "unrecognized arguments"),
    ],
)
def test_wrong_arguments(arguments, text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "READY recommender version=2 port=8500 rest_port=8501" in text
    assert "no version that could be loaded" in text
