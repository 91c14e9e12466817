"""Measures latency, throughput and errors of a model server under load. Needs no TensorFlow.

Run it with `python -m serving.load_test --help`.
"""

import argparse
import contextlib
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path

from bivrec_contract.errors import BivrecError, ConfigError
from serving.client import RecommenderClient, RetryPolicy, ServingError, TlsOptions
from serving.load_report import (
    OK,
    Sample,
    Summary,
    describe,
    summarise,
    write_csv,
    write_plot,
)

NOT_SENT = "NOT_SENT"
_EXPLANATION = """\
Two kinds of load:

  closed loop   --workers N             N users, each asking again as soon as it is answered. Finds
                                        the throughput. A slow server is asked less, so that its
                                        latencies look better than what a site would see.
  open loop     --rate R --workers N    R requests a second, come what may, over at most N calls at
                                        a time. A latency counts from when the request was due, not
                                        from when a call became free for it: a server that stalls
                                        shows it in every request that waited. Finds the latency.

Histories come from --histories, one user per line, or are drawn from the items that the model
itself recommends to a user of whom it knows nothing.

exit codes:
  0  measured, and within the limits
  1  a limit (--max-p99-ms, --max-error-rate, --min-throughput) was not kept
  2  an argument is wrong
  3  the server was not ready within --ready-seconds, or does not answer as the model would

examples:
  python -m serving.load_test --target localhost:8500 --workers 8 --seconds 30
  python -m serving.load_test --target localhost:8500 --rate 200 --workers 64 \\
      --max-p99-ms 50 --max-error-rate 0.001 --csv load.csv --plot load.png
"""


def run_load(
    ask: Callable[[int], object],
    *,
    workers: int,
    seconds: float,
    rate: float | None = None,
    patience: float = 2.0,
    seen: Callable[[Sample], object] | None = None,
    stop: threading.Event | None = None,
) -> list[Sample]:
    """Asks for some time, from several threads.

    Args:
        ask: Makes the request of a number; a `ServingError` that it raises is counted by its code.
        workers: How many requests are under way at most.
        seconds: How long new requests become due.
        rate: How many of them in a second; None to send the next one when one is answered.
        patience: With a rate: how many seconds after `seconds` requests that are due are still
            sent; those that are not by then are counted as `NOT_SENT`.
        seen: Told every sample, from any thread.
        stop: Ends the load before its time when it is set.

    Returns:
        One sample for each request that was due.
    """
    numbers = itertools.count()
    start = time.monotonic()

    def next_due() -> Iterator[tuple[int, float]]:
        for number in numbers:
            due = time.monotonic() - start if rate is None else number / rate
            if due >= seconds or (stop is not None and stop.is_set()):
                return
            time.sleep(max(0.0, start + due - time.monotonic()))
            yield number, due

    def work() -> list[Sample]:
        samples = []
        for number, due in next_due():
            code = OK
            if rate is not None and time.monotonic() - start > seconds + patience:
                code = NOT_SENT
            else:
                try:
                    ask(number)
                except ServingError as error:
                    code = error.code.name
            samples.append(Sample(due, time.monotonic() - start - due, code))
            if seen is not None:
                seen(samples[-1])
        return samples

    with futures.ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work) for _ in range(workers)]
        return [sample for each in running for sample in each.result()]


def read_histories(path: Path) -> list[list[str]]:
    """Reads one history from each line: item ids, oldest first, apart by spaces or commas.

    Raises:
        ConfigError: If the file cannot be read or holds no item id.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--histories: cannot read {path}: {error}") from error
    histories = [line.replace(",", " ").split() for line in lines]
    if not any(histories):
        raise ConfigError(f"--histories: {path} holds no item id")
    return histories


def draw_histories(client: RecommenderClient, k: int, length: int) -> list[list[str]]:
    """Draws histories, always the same, from the items that the model recommends to anybody.

    Raises:
        ServingError: If the model cannot be asked.
    """
    items: list[str] = []
    for _ in range(5):
        items += [item.item_id for item in client.recommend([], k=k, exclude=items).items]
    if not items:
        raise ConfigError("the model recommends nothing to a new user: give --histories")
    draw = random.Random(0)
    return [draw.choices(items, k=draw.randint(1, length)) for _ in range(1000)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.plot is not None and not _has_matplotlib():
        parser.error("--plot needs matplotlib: pip install matplotlib")
    try:
        tls = _tls(options)
        histories = None if options.histories is None else read_histories(options.histories)
        client = RecommenderClient(
            options.target,
            options.model_name,
            options.timeout,
            version_label=options.version_label,
            tls=tls,
            retries=RetryPolicy() if options.retry else None,
        )
    except BivrecError as error:
        parser.error(str(error))
    with client:
        try:
            client.wait_until_ready(options.ready_seconds)
            if histories is None:
                histories = draw_histories(client, options.k, options.history_length)
            client.recommend(histories[0], k=options.k)
        except BivrecError as error:
            print(f"error: {error}", file=sys.stderr)
            return 3
        samples = _measure(client, histories, options)
    summary = summarise(samples)
    print(describe(summary))
    if options.csv is not None:
        write_csv(samples, options.csv)
    if options.plot is not None:
        kind = f"{options.rate:g} requests/s" if options.rate else "closed loop"
        write_plot(samples, options.plot, f"{options.target}: {kind}, {options.workers} workers")
    broken = _broken_limits(summary, options)
    for text in broken:
        print(f"LIMIT {text}", file=sys.stderr)
    return 1 if broken else 0


def _measure(
    client: RecommenderClient, histories: list[list[str]], options: argparse.Namespace
) -> list[Sample]:
    size = options.histories_per_request

    def ask(number: int) -> None:
        rows = [histories[(number * size + row) % len(histories)] for row in range(size)]
        client.recommend_many(rows, k=options.k)

    load = {"workers": options.workers, "rate": options.rate, "patience": options.timeout}
    if options.warm_up_seconds:
        run_load(ask, seconds=options.warm_up_seconds, **load)
    with _progress(options.seconds) as seen:
        return run_load(ask, seconds=options.seconds, seen=seen, **load)


@contextlib.contextmanager
def _progress(seconds: float) -> Iterator[Callable[[Sample], object] | None]:
    """Shows how far a measurement is, on a terminal that can."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        yield None
        return
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("measuring", total=seconds)
        # The library redraws ten times a second, however often it is told.
        yield lambda sample: progress.update(task, completed=sample.start)


def _broken_limits(summary: Summary, options: argparse.Namespace) -> list[str]:
    p99 = summary.latencies["p99"]
    checks = [
        # Not a number keeps no limit: nothing was answered.
        (options.max_p99_ms, not p99 <= (options.max_p99_ms or 0), f"p99 is {p99:.1f} ms"),
        (
            options.max_error_rate,
            summary.error_rate > (options.max_error_rate or 0),
            f"the error rate is {summary.error_rate:.6f}",
        ),
        (
            options.min_throughput,
            summary.throughput < (options.min_throughput or 0),
            f"the throughput is {summary.throughput:.1f}/s",
        ),
    ]
    return [
        f"{text}, and was to be {'at least' if 'throughput' in text else 'at most'} {limit:g}"
        for limit, is_broken, text in checks
        if limit is not None and is_broken
    ]


def _tls(options: argparse.Namespace) -> TlsOptions | None:
    given = {
        "root_certificates": options.tls_root_certificates,
        "certificate": options.tls_certificate,
        "key": options.tls_key,
        "server_name": options.tls_server_name,
    }
    tls = TlsOptions(**given) if options.tls or any(given.values()) else None
    if tls is not None:
        tls.credentials()
    return tls


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.load_test",
        description=__doc__.splitlines()[0],
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--target", required=True, help="the server's gRPC address, like localhost:8500")
    add("--model-name", default="recommender", help="default: %(default)s")
    add("--version-label", help="ask the version of this label, like canary")
    add("--histories", type=Path, help="a file of item ids, one user per line")
    add("--history-length", type=_whole, default=50, help="of drawn histories, at most: 50")
    add("--histories-per-request", type=_whole, default=1, help="default: %(default)s")
    add("--k", type=_whole, default=10, help="recommendations for each user: %(default)s")
    add("--workers", type=_whole, default=8, help="calls under way at most: %(default)s")
    add("--rate", type=_positive, help="requests per second; without it the loop is closed")
    add("--seconds", type=_positive, default=10.0, help="of measuring; default: %(default)s")
    add("--warm-up-seconds", type=_positive_or_zero, default=2.0, help="not counted: %(default)s")
    add("--timeout", type=_positive, default=2.0, help="seconds for a request: %(default)s")
    add("--retry", action="store_true", help="try again when unavailable, as services should do")
    add("--ready-seconds", type=_positive, default=60.0, help="to wait at first: %(default)s")
    add("--max-p99-ms", type=_positive, help="limit: exit with 1 if the 99th percentile is above")
    add("--max-error-rate", type=_positive_or_zero, help="limit, as a share: 0.001 is one in 1,000")
    add("--min-throughput", type=_positive, help="limit: answers per second")
    add("--csv", type=_new_file, help="write one row for each request")
    add("--plot", type=_new_file, help="draw latency and codes over time, a PNG")
    add("--tls", action="store_true", help="encrypt; the options below imply it")
    add("--tls-root-certificates", type=Path, metavar="PEM", help="whom to trust")
    add("--tls-certificate", type=Path, metavar="PEM", help="the client's own, for mutual TLS")
    add("--tls-key", type=Path, metavar="PEM", help="its private key")
    add("--tls-server-name", metavar="NAME", help="the name in the server's certificate")
    return parser


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _positive_or_zero(text: str) -> float:
    return 0.0 if float(text) == 0 else _positive(text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {text}: its folder does not exist")
    return path


if __name__ == "__main__":
    sys.exit(main())
