"""The server: loads the model, opens the port, watches for new versions."""

import logging
import threading
import time
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from bivrec_tf.errors import BivrecError
from serving.development_server.model_lookup import ServedModel
from serving.development_server.model_service import ModelService
from serving.development_server.prediction_service import PredictionService
from serving.development_server.versions import VersionManager

_LOGGER = logging.getLogger(__name__)

_STARTUP_POLL_SECONDS = 0.2


class NoVersionLoadedError(BivrecError):
    """No version could be loaded in the start-up time; the message tells why for each."""


class PortUnavailableError(BivrecError):
    """The address cannot be listened on, usually because something else does."""


class DevelopmentServer:
    """Serves the newest version of a model in this process. A context manager.

    For anything but a unit test use `serving.process.ServerProcess`: a model that brings its
    process down should not take the caller's with it.

    Args:
        model_base_path: The folder that holds the version folders.
        model_name: The name that requests must give.
        host: The address to listen on.
        port: The port, or 0 for any free one.
        poll_seconds: How often to look for a new version; 0 for never after the start.
        startup_seconds: How long to wait at the start for a version that loads.
        threads: How many requests are answered at the same time.
        max_message_bytes: The largest message, in either direction; also what the inputs of one
            request may take when unpacked.

    Attributes:
        port: The port that is listened on, once started.
    """

    def __init__(
        self,
        model_base_path: str | Path,
        model_name: str = "recommender",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        poll_seconds: float = 1.0,
        startup_seconds: float = 30.0,
        threads: int = 8,
        max_message_bytes: int = 64 * 2**20,
    ):
        self.port = port
        self._host = host
        self._poll_seconds = poll_seconds
        self._startup_seconds = startup_seconds
        self._base_path = Path(model_base_path)
        self._model = ServedModel(model_name, VersionManager(self._base_path))
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="version-poll", daemon=True)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="request"),
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # Two servers on one port would share its requests without anybody noticing.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._model, max_message_bytes), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._model), self._server
        )

    @property
    def target(self) -> str:
        """The address for `grpc.insecure_channel`, once started."""
        return f"{self._host}:{self.port}"

    @property
    def version(self) -> int | None:
        """The version that is served, or None before the first one is loaded."""
        current = self._model.versions.current
        return None if current is None else current.version

    def start(self) -> None:
        """Loads the newest version and starts to answer. Can be called once.

        Raises:
            NoVersionLoadedError: If no version could be loaded in the start-up time.
            PortUnavailableError: If the address cannot be listened on.
        """
        self._load_first_version()
        try:
            self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
        except RuntimeError as error:
            raise PortUnavailableError(
                f"cannot listen on {self.target}: is another program using the port? "
                f"Port 0 takes any free one."
            ) from error
        self._server.start()
        if self._poll_seconds > 0:
            self._poller.start()

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Refuses new requests, waits for those under way, and stops.

        Args:
            grace_seconds: How long to wait for requests under way before cancelling them.
        """
        self._stopping.set()
        self._server.stop(grace_seconds).wait()
        if self._poller.is_alive():
            self._poller.join()

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

    def _load_first_version(self) -> None:
        versions = self._model.versions
        deadline = time.monotonic() + self._startup_seconds
        while True:
            versions.refresh(wait_until_unchanged=False)
            if versions.current is not None:
                return
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            time.sleep(min(_STARTUP_POLL_SECONDS, remaining))
        problems = [f"version {version} {text}" for version, text in versions.problems().items()]
        raise NoVersionLoadedError(
            f"no version of {self._model.name!r} could be loaded from {self._base_path}: "
            + ("; ".join(problems) or "no folder there is named by a version number, like 1")
        )

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._model.versions.refresh()
            except OSError as error:  # A file share that is away for a moment, for instance.
                _LOGGER.warning("cannot look for new versions: %s", error)
