"""The development server as a child process: started, waited for, and reliably ended."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bivrec_contract.errors import BivrecError

_READY = re.compile(
    r"^READY .+? version=(?P<version>\d+).*? port=(?P<port>\d+)(?: rest_port=(?P<rest_port>\d+))?$",
    re.M,
)
_LOOK_SECONDS = 0.05
_LOG_TAIL_LINES = 20
_PROJECT_ROOT = Path(__file__).resolve().parents[1]


class ServerProcessError(BivrecError):
    """The server process did not become ready; the message ends with the end of its log.

    Attributes:
        exit_code: The child's exit code (2: wrong arguments, 3: no version could be loaded,
            negative: ended by that signal), or None if it was still starting.
    """

    def __init__(self, message: str, exit_code: int | None):
        super().__init__(message)
        self.exit_code = exit_code


class ServerProcess:
    """Runs `python -m serving.development_server` on a free port. A context manager.

    The child ends with the `with` block, and also when this process ends in any other way.

    Example:
        >>> with ServerProcess("models/recommender") as server:  # doctest: +SKIP
        ...     client = RecommenderClient(server.target)

    Args:
        model_base_path: The folder that holds the version folders.
        model_name: The name that requests must give.
        start_timeout: How many seconds the child may take until it answers.
        stop_timeout: How many seconds requests under way may take when it is stopped; after
            that it is killed.
        poll_seconds: How often the child looks for a new version; 0 for never after the start.
        wait_for_version_seconds: How long the child waits for a version that loads; with 0 it
            gives up at once if there is none.
        port: The port, or 0 for any free one.
        rest: Whether the child also serves REST, on any free port.
        arguments: More of the server's arguments, as on its command line. With
            `--model_config_file` among them, base path and name are not passed on.
    """

    def __init__(
        self,
        model_base_path: str | Path,
        model_name: str = "recommender",
        *,
        start_timeout: float = 120.0,
        stop_timeout: float = 10.0,
        poll_seconds: float = 1.0,
        wait_for_version_seconds: float = 0.0,
        port: int = 0,
        rest: bool = False,
        arguments: Sequence[str] = (),
    ):
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        model = [
            "--model_name",
            model_name,
            "--model_base_path",
            str(Path(model_base_path).absolute()),
        ]
        self._command = [
            *(sys.executable, "-m", "serving.development_server"),
            *([] if "--model_config_file" in arguments else model),
            *(["--rest_api_port", "any"] if rest else []),
            *("--port", str(port)),
            *("--file_system_poll_wait_seconds", str(poll_seconds)),
            *("--startup_seconds", str(wait_for_version_seconds)),
            *("--shutdown_grace_seconds", str(stop_timeout)),
            "--stop_when_stdin_closes",
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._final_log = ""
        self._port: int | None = None
        self._rest_port: int | None = None
        self._version: int | None = None

    @property
    def target(self) -> str:
        """The address for a client, like `127.0.0.1:40123`.

        Raises:
            RuntimeError: If the server was not started.
        """
        if self._port is None:
            raise RuntimeError("the server was not started: use it in a `with` block")
        return f"127.0.0.1:{self._port}"

    @property
    def rest_target(self) -> str:
        """The address for REST, like `127.0.0.1:40124`.

        Raises:
            RuntimeError: If the server was not started, or has no REST.
        """
        if self._rest_port is None:
            raise RuntimeError("the server was not started with REST: use `rest=True`")
        return f"127.0.0.1:{self._rest_port}"

    @property
    def version(self) -> int | None:
        """The version that was served when the server became ready; None before."""
        return self._version

    @property
    def pid(self) -> int | None:
        """The process id of the child, or None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the child, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def log(self) -> str:
        """Returns what the child has written to its output and its log so far."""
        if self._output is None:
            return self._final_log
        return Path(self._output.name).read_text(errors="replace")

    def start(self) -> None:
        """Starts the child and waits until it answers.

        Raises:
            ServerProcessError: If it ends, or is not ready in time; it is then gone.
            RuntimeError: If it was started before.
        """
        if self._process is not None:
            raise RuntimeError("a server process can be started only once")
        # One file, not pipes: nobody has to read it for the child to go on writing.
        self._output = tempfile.NamedTemporaryFile(prefix="development_server_", suffix=".log")  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=_child_environment(),
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self._end(grace_seconds=0)
            self._close()
            raise

    def stop(self) -> int | None:
        """Ends the child, after the requests under way; does nothing if it has ended.

        Returns:
            The exit code: 0 unless it had to be killed or had ended by itself before; None if it
            was never started.
        """
        if self._process is None:
            return None
        self._end(self._stop_timeout)
        self._close()
        return self._process.returncode

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._start_timeout
        while True:
            exit_code = self._process.poll()
            ready = _READY.search(self.log())
            if ready:
                self._version, self._port = int(ready["version"]), int(ready["port"])
                self._rest_port = int(ready["rest_port"]) if ready["rest_port"] else None
                return
            if exit_code is not None:
                raise self._error(f"the server ended with exit code {exit_code}", exit_code)
            if time.monotonic() > deadline:
                raise self._error(
                    f"the server was not ready after {self._start_timeout:g} seconds", None
                )
            time.sleep(_LOOK_SECONDS)

    def _error(self, what: str, exit_code: int | None) -> ServerProcessError:
        tail = "\n".join(self.log().splitlines()[-_LOG_TAIL_LINES:])
        return ServerProcessError(
            f"{what}.\nCommand: {' '.join(self._command)}\nThe end of its log:\n{tail}", exit_code
        )

    def _end(self, grace_seconds: float) -> None:
        assert self._process is not None
        if self._process.poll() is None and grace_seconds > 0:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The child itself cancels requests when the grace is over; a little more for that.
                self._process.wait(grace_seconds + 5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        assert self._process is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._output is not None:
            self._final_log = self.log()
            self._output.close()
            self._output = None


def _child_environment() -> dict[str, str]:
    """Returns this process's environment, with what the child needs to find and load us."""
    environment = dict(os.environ)
    paths = [str(_PROJECT_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return environment
