"""`python -m serving.development_server`: the development server as a program."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

WRONG_ARGUMENTS = 2
NO_VERSION_LOADED = 3

_LARGEST_MESSAGE_SIZE = 2**31 - 1

_DESCRIPTION = """\
Serves the newest version of a SavedModel over gRPC, like TensorFlow Serving does, on this machine.
For laptops, tests and validation; production runs tensorflow/serving on the same folder.

The base path holds one folder for each version, named by its number:

  models/recommender/1/saved_model.pb
  models/recommender/2/saved_model.pb      <- this one is served

A higher number that appears later is loaded and then replaces it, without an interruption.
When ready, one line goes to standard output:

  READY recommender version=2 port=8500

Everything else goes to standard error.
"""

_EPILOG = """\
example:
  python -m serving.development_server --model_base_path models/recommender --port 8500

exit codes:
  0  stopped by SIGTERM or SIGINT, after the requests under way were answered
  2  an argument is wrong, the base path does not exist, or the port is taken
  3  no version could be loaded in the start-up time
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit code.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    options = _parse(arguments)
    # Until there are requests to finish, being told to stop means to leave at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_now)
    if options.stop_when_stdin_closes:
        threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )

    from serving.development_server.server import (
        DevelopmentServer,
        NoVersionLoadedError,
        PortUnavailableError,
    )

    server = DevelopmentServer(
        options.model_base_path,
        options.model_name,
        host=options.host,
        port=options.port,
        poll_seconds=options.file_system_poll_wait_seconds,
        startup_seconds=options.startup_seconds,
        threads=options.threads,
        max_message_bytes=options.max_message_bytes,
    )
    try:
        server.start()
    except NoVersionLoadedError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_VERSION_LOADED
    except PortUnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS

    stop_requested = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_requested.set())
    print(f"READY {options.model_name} version={server.version} port={server.port}", flush=True)
    stop_requested.wait()
    server.stop(options.shutdown_grace_seconds)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.development_server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_base_path", type=Path, required=True, help="the folder of the version folders")
    add("--model_name", default="recommender", help="the name that requests give [%(default)s]")
    add("--host", default="127.0.0.1", help="the address to listen on [%(default)s: this machine]")
    add("--port", type=_port, default=8500, help="the port; 0 takes any free one [%(default)s]")
    add(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1.0,
        help="how often to look for a new version; 0 only looks at the start [%(default)s]",
    )
    add(
        "--startup_seconds",
        type=_seconds,
        default=30.0,
        help="how long to wait for a first version that loads [%(default)s]",
    )
    add(
        "--shutdown_grace_seconds",
        type=_seconds,
        default=30.0,
        help="how long requests under way may take after SIGTERM [%(default)s]",
    )
    add("--threads", type=_positive, default=8, help="requests answered at a time [%(default)s]")
    add(
        "--max_message_bytes",
        type=_message_size,
        default=64 * 2**20,
        help="the largest request or response, in bytes [%(default)s]",
    )
    add(
        "--stop_when_stdin_closes",
        action="store_true",
        help="stop when standard input ends: a child then never outlives its parent",
    )
    options = parser.parse_args(arguments)
    if not options.model_name:
        parser.error("--model_name must not be empty")
    if not options.model_base_path.is_dir():
        parser.error(f"--model_base_path: no such directory: {options.model_base_path}")
    return options


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port: 0 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _message_size(text: str) -> int:
    size = _positive(text)
    if size > _LARGEST_MESSAGE_SIZE:
        raise argparse.ArgumentTypeError(f"{size} is more than {_LARGEST_MESSAGE_SIZE}")
    return size


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return seconds


def _exit_now(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _stop_when_stdin_closes() -> None:
    # Not through sys.stdin: its lock, held here, would make the interpreter's end fail.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
