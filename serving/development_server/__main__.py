"""`python -m serving.development_server`: the development server as a program."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from bivrec_contract.errors import ConfigError
from serving.development_server.command_line import parse

WRONG_ARGUMENTS = 2
NO_VERSION_LOADED = 3
_SIGNAL_POLL_SECONDS = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until it is told to stop; returns the exit code.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    options = parse(arguments)
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
    # It would announce that sessions are of the old TensorFlow; TensorFlow Serving uses them too.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)

    from serving.development_server.options import server_from_options
    from serving.development_server.server import NoVersionLoadedError, PortUnavailableError

    try:
        server = server_from_options(options)
        server.start()
    except NoVersionLoadedError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_VERSION_LOADED
    except (ConfigError, PortUnavailableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS

    stop_requested: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop_requested.append(number))
    models = " ".join(f"{name} version={version}" for name, version in server.versions.items())
    rest = "" if server.rest_port is None else f" rest_port={server.rest_port}"
    print(f"READY {models} port={server.port}{rest}", flush=True)
    # Not by an event: the kernel may give the signal to a thread of TensorFlow, which does not wake
    # this one, and only this one runs the handler.
    while not stop_requested:
        time.sleep(_SIGNAL_POLL_SECONDS)
    server.stop(options.shutdown_grace_seconds)
    return 0


def _exit_now(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _stop_when_stdin_closes() -> None:
    # Not through sys.stdin: its lock, held here, would make the interpreter's end fail.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
