import csv
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import ServingError
from serving.load_report import Sample, percentile, summarise
from serving.load_test import main, read_histories, run_load

ROOT = Path(__file__).parents[2]
QUICK = ["--seconds", "0.5", "--warm-up-seconds", "0.2", "--timeout", "60", "--workers", "4"]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 90, 95, 99, 100]))
def test_percentiles_are_those_of_numpy(values, percent):
    assert percentile(sorted(values), percent) == np.percentile(
        values, percent, method="inverted_cdf"
    )


def test_summary():
    samples = [Sample(0.0, 0.25, "OK"), Sample(1.0, 1.0, "OK"), Sample(1.5, 0.1, "UNAVAILABLE")]
    summary = summarise([*samples, Sample(0.5, 3.0, "NOT_SENT")])
    assert summary.codes == {"OK": 2, "UNAVAILABLE": 1, "NOT_SENT": 1}
    assert summary.seconds == 3.5
    assert summary.throughput == 2 / 3.5
    assert summary.error_rate == 0.5
    # An error is not a fast answer.
    assert summary.latencies["p50"] == 250.0
    assert summary.latencies["max"] == 1000.0


def test_nothing_measured_is_no_success():
    summary = summarise([])
    assert summary.error_rate == 1.0
    assert math.isnan(summary.latencies["p99"])


def stall_once(number: int) -> None:
    if number == 3:
        time.sleep(0.5)


def test_a_stall_shows_in_every_request_that_was_due_meanwhile():
    """The closed loop has one slow request: it did not ask while it waited."""
    open_loop = run_load(stall_once, workers=1, seconds=1.0, rate=100.0, patience=60.0)
    assert len(open_loop) == 100
    # 100 a second for half a second; those due in its second half waited less than 0.2 s.
    assert sum(sample.latency > 0.2 for sample in open_loop) >= 30
    answered = []

    def ask(number: int) -> None:
        stall_once(number)
        answered.append(number)
        if len(answered) == 50:
            stop.set()

    stop = threading.Event()
    closed_loop = run_load(ask, workers=1, seconds=60.0, stop=stop)
    assert len(closed_loop) == 50
    assert max(closed_loop, key=lambda sample: sample.latency).latency >= 0.5


def test_requests_that_no_call_was_free_for_are_counted():
    samples = run_load(
        lambda number: time.sleep(0.3), workers=1, seconds=0.5, rate=100.0, patience=0.1
    )
    codes = summarise(samples).codes
    assert sum(codes.values()) == 50
    assert codes["NOT_SENT"] > 40


def test_errors_are_counted_by_code_and_others_are_not_hidden():
    def ask(number: int) -> None:
        if number % 2:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise ServingError("", code=code, target="", advice="")

    samples = run_load(ask, workers=2, seconds=0.2, rate=100.0, patience=60.0)
    assert summarise(samples).codes == {"OK": 10, "RESOURCE_EXHAUSTED": 10}
    with pytest.raises(ZeroDivisionError):
        run_load(lambda number: 1 / 0, workers=2, seconds=0.2, rate=100.0)


@pytest.mark.parametrize("loop", [[], ["--rate", "40", "--histories-per-request", "3"]])
def test_command(server, tmp_path, capsys, loop):
    table, plot = tmp_path / "load.csv", tmp_path / "load.png"
    files = ["--csv", str(table), "--plot", str(plot)]
    limits = ["--max-p99-ms", "60000", "--max-error-rate", "0", "--min-throughput", "0.001"]
    assert main(["--target", server.target, *QUICK, *loop, *files, *limits]) == 0
    output = capsys.readouterr().out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert f"requests    {len(rows)} in" in output
    assert f"codes       OK {len(rows)}" in output
    assert {row["code"] for row in rows} == {"OK"}
    if loop:
        assert len(rows) == 20
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_histories_of_a_file(start_proxy, tmp_path):
    path = tmp_path / "histories.txt"
    path.write_text("item-1 item-2\n\nitem-3,item-4\n")
    assert read_histories(path) == [["item-1", "item-2"], [], ["item-3", "item-4"]]
    _, target = start_proxy()
    assert main(["--target", target, *QUICK, "--histories", str(path)]) == 0


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (["--max-p99-ms", "0.001"], "LIMIT p99 is"),
        (["--min-throughput", "1e9"], "LIMIT the throughput is"),
    ],
)
def test_limits(server, capsys, limit, text):
    assert main(["--target", server.target, *QUICK, *limit]) == 1
    assert text in capsys.readouterr().err


def test_failed_requests_break_the_limit(start_proxy, capsys):
    proxy, target = start_proxy()
    stopped = threading.Event()

    def break_down() -> None:
        # In the middle of the measurement, whenever that is.
        while not stopped.wait(0.05):
            if proxy.calls > 20:
                proxy.codes = [grpc.StatusCode.INTERNAL] * 3

    thread = threading.Thread(target=break_down)
    thread.start()
    try:
        arguments = ["--target", target, *QUICK, "--rate", "200", "--max-error-rate", "0.0001"]
        assert main(arguments) == 1
    finally:
        stopped.set()
        thread.join()
    captured = capsys.readouterr()
    assert "INTERNAL" in captured.out
    assert "LIMIT the error rate is" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--target", "localhost:1", "--workers", "0"],
        ["--target", "localhost:1", "--rate", "-1"],
        ["--target", "localhost:1", "--seconds", "nan"],
        ["--target", "localhost:1", "--histories", "/nowhere/histories.txt"],
        ["--target", "localhost:1", "--csv", "/nowhere/load.csv"],
        ["--target", "localhost:1", "--tls-certificate", "/nowhere/cert.pem"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_no_server(capsys):
    assert main(["--target", "127.0.0.1:1", "--ready-seconds", "0.2"]) == 3
    assert "not ready after 0.2 seconds" in capsys.readouterr().err


def test_as_a_program_without_tensorflow(server):
    code = (
        "import sys; from serving.load_test import main; code = main(sys.argv[1:]); "
        "print({'tensorflow', 'bivrec_tf'} & set(sys.modules)); sys.exit(code)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "--target", server.target, *QUICK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("set()\n")
