"""Waiting for a server: what counts as ready, and what is said when it never is."""

import contextlib
import time
from collections.abc import Iterator

import grpc

from serving.answers import VersionStatus
from serving.errors import DeadlineExceeded, ModelNotFound, ServerUnavailable

_POLL_SECONDS = 0.1


class Readiness:
    """Keeps the time while a client asks again and again. For one wait.

    Args:
        target: The address that is called.
        timeout: How many seconds to wait at most.

    Attributes:
        reached: Whether the server has the model loaded.
    """

    def __init__(self, target: str, timeout: float):
        self.reached = False
        self._target = target
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._problem: Exception | None = None

    @contextlib.contextmanager
    def look(self) -> Iterator[float]:
        """Gives the seconds that one question may take, and keeps the errors of waiting.

        Raises:
            ModelNotFound: If the time is over, and the server did not have the model.
            ServerUnavailable: If the time is over, and no server answered.
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self._error() from self._problem
        try:
            yield remaining
        except DeadlineExceeded as error:
            self._deadline = time.monotonic()
            self._problem = self._problem or error
        except (ModelNotFound, ServerUnavailable) as error:
            self._problem = error

    def report(self, versions: tuple[VersionStatus, ...]) -> None:
        """Takes what the server said."""
        self.reached = any(version.state == "AVAILABLE" for version in versions)

    def pause(self) -> float:
        """Returns the seconds to wait before the next question."""
        return min(_POLL_SECONDS, max(0.0, self._deadline - time.monotonic()))

    def _error(self) -> Exception:
        if isinstance(self._problem, ModelNotFound):
            return self._problem
        return ServerUnavailable(
            f"not ready after {self._timeout:g} seconds",
            code=grpc.StatusCode.UNAVAILABLE,
            target=self._target,
            advice="See whether the server runs and listens at this address, and its log.",
        )
