"""The server: loads the models, opens the ports, watches for new versions and configurations."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from bivrec_contract.errors import BivrecError, ConfigError
from serving.development_server.batching import Batcher, BatchingParameters
from serving.development_server.core import Core
from serving.development_server.grpc_messages import CheckedHandlers
from serving.development_server.health_service import HealthService
from serving.development_server.loading import Loader
from serving.development_server.metrics import Metrics
from serving.development_server.model_config import as_config_error, read_message, single_model
from serving.development_server.model_registry import ModelRegistry
from serving.development_server.model_service import ModelService
from serving.development_server.prediction_service import PredictionService
from serving.development_server.rest_api import RestApi
from serving.development_server.rest_server import RestServer
from serving.development_server.status import StatusError

_LOGGER = logging.getLogger(__name__)

_STARTUP_POLL_SECONDS = 0.2
_MAX_OPEN_CALLS = 1000
"""How many gRPC calls may be open. Far more than are worked on: a call holds a thread from its
first byte on, and a client that never sends the rest must not keep one of few."""


class NoVersionLoadedError(BivrecError):
    """A model has no version that could be loaded in the start-up time; the message tells why."""


class PortUnavailableError(BivrecError):
    """The address cannot be listened on, usually because something else does."""


class DevelopmentServer:
    """Serves models in this process, over gRPC and REST. A context manager.

    For anything but a unit test use `serving.process.ServerProcess`: a model that brings its
    process down should not take the caller's with it.

    Args:
        models: A `ModelServerConfig`, or the folder that holds the version folders of one model.
        model_name: The name of that one model.
        host: The address to listen on.
        port: The gRPC port, or 0 for any free one.
        rest_port: The REST port, 0 for any free one, None for no REST.
        config_file: Where `models` came from, to be read again.
        config_poll_seconds: How often to read it again; 0 for never.
        poll_seconds: How often to look for a new version; 0 for never after the start.
        startup_seconds: How long to wait at the start for a version of every model that loads.
        threads: How many requests are worked on at the same time.
        max_message_bytes: The largest message, in either direction; also what the inputs of one
            request may take when unpacked.
        rest_timeout_seconds: How long a REST client may take to send or to receive.
        credentials: For TLS on gRPC; None for none.
        batching: How to put requests together; None for not at all.
        metrics_path: Where on the REST port Prometheus finds metrics; None for nowhere.
        warm_up: Whether to run the warm-up requests of a version before it is served.
        health: Whether to answer `grpc.health.v1`.
        allow_labels_for_unavailable_models: As for `ModelRegistry`.
        channel_arguments: More settings of gRPC, by name.
        session_config: Threads of TensorFlow; None for its own choice.

    Attributes:
        port: The gRPC port that is listened on, once started.
        rest_port: The REST port, once started; None without REST.
    """

    def __init__(
        self,
        models: model_server_config_pb2.ModelServerConfig | str | Path,
        model_name: str = "recommender",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_port: int | None = None,
        config_file: Path | None = None,
        config_poll_seconds: float = 0.0,
        poll_seconds: float = 1.0,
        startup_seconds: float = 30.0,
        threads: int = 8,
        max_message_bytes: int = 64 * 2**20,
        rest_timeout_seconds: float = 30.0,
        credentials: grpc.ServerCredentials | None = None,
        batching: BatchingParameters | None = None,
        metrics_path: str | None = None,
        warm_up: bool = True,
        health: bool = True,
        allow_labels_for_unavailable_models: bool = False,
        channel_arguments: Sequence[tuple[str, int | str]] = (),
        session_config: tf.compat.v1.ConfigProto | None = None,
    ):
        if isinstance(models, str | Path):
            models = single_model(model_name, Path(models))
        self.port = port
        self.rest_port = rest_port
        self._config = models
        self._host = host
        self._config_file = config_file
        self._startup_seconds = startup_seconds
        self._max_message_bytes = max_message_bytes
        self._rest_timeout_seconds = rest_timeout_seconds
        self._metrics_path = metrics_path
        self._credentials = credentials
        self._batcher = None if batching is None else Batcher(batching)
        loader = Loader(max_message_bytes, warm_up, self._batcher, session_config)
        self._registry = ModelRegistry(loader, allow_labels_for_unavailable_models)
        self._core = Core(self._registry, Metrics(), max_message_bytes, threads)
        self._stopping = threading.Event()
        self._watchers = [
            threading.Thread(target=self._every, args=(seconds, look), name=name, daemon=True)
            for name, seconds, look in (
                ("version-poll", poll_seconds, self._registry.refresh),
                ("config-poll", config_poll_seconds, self._read_config_again),
            )
            if seconds > 0
        ]
        self._server = self._grpc_server(threads, channel_arguments)
        self._health = HealthService(self._server) if health else None
        self._rest: RestServer | None = None

    @property
    def target(self) -> str:
        """The address for `grpc.insecure_channel`, once started."""
        return f"{self._host}:{self.port}"

    @property
    def versions(self) -> Mapping[str, int | None]:
        """The newest version that is served of every model, None before the first is loaded."""
        newest = {name: model.versions.current for name, model in self._registry.models.items()}
        return {
            name: None if servable is None else servable.version
            for name, servable in newest.items()
        }

    def start(self) -> None:
        """Loads the models and starts to answer. Can be called once.

        Raises:
            ConfigError: If the configuration contradicts itself or a base path does not exist.
            NoVersionLoadedError: If a model has no version that loads in the start-up time.
            PortUnavailableError: If an address cannot be listened on.
        """
        self._load_models()
        address = f"{self._host}:{self.port}"
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise _port_unavailable(self.target) from error
        if self.rest_port is not None:
            api = RestApi(self._core, self._metrics_path)
            try:
                self._rest = RestServer(
                    api,
                    self._host,
                    self.rest_port,
                    self._max_message_bytes,
                    self._rest_timeout_seconds,
                )
            except OSError as error:
                raise _port_unavailable(f"{self._host}:{self.rest_port}") from error
            self.rest_port = self._rest.port
            self._rest.start()
        self._server.start()
        if self._health is not None:
            self._health.serving()
        for watcher in self._watchers:
            watcher.start()

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Refuses new requests, waits for those under way, and stops.

        Args:
            grace_seconds: How long to wait for requests under way before cancelling them.
        """
        self._stopping.set()
        if self._health is not None:
            self._health.stopping()
        stopped = self._server.stop(grace_seconds)
        if self._rest is not None:
            self._rest.stop(grace_seconds)
        stopped.wait()
        for watcher in self._watchers:
            if watcher.is_alive():
                watcher.join()
        if self._batcher is not None:
            self._batcher.stop()

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

    def _grpc_server(
        self, threads: int, channel_arguments: Sequence[tuple[str, int | str]]
    ) -> grpc.Server:
        server = grpc.server(
            futures.ThreadPoolExecutor(max(threads, _MAX_OPEN_CALLS), thread_name_prefix="request"),
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", self._max_message_bytes),
                # Two servers on one port would share its requests without anybody noticing.
                ("grpc.so_reuseport", 0),
                *channel_arguments,
            ],
        )
        checked = CheckedHandlers(server, self._core.metrics)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._core), checked
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._registry), checked
        )
        return server

    def _load_models(self) -> None:
        where = "the configuration" if self._config_file is None else str(self._config_file)
        if self._config.WhichOneof("config") != "model_config_list":
            raise ConfigError(f"{where}: holds no model_config_list")
        for config in self._config.model_config_list.config:
            if config.base_path and not Path(config.base_path).is_dir():
                raise ConfigError(
                    f"{where}: model {config.name}: no such directory: {config.base_path}"
                )
        try:
            self._registry.configure(self._config, wait_for_models=False)
        except StatusError as error:
            raise as_config_error(error, where) from error
        deadline = time.monotonic() + self._startup_seconds
        while True:
            missing = [name for name, version in self.versions.items() if version is None]
            remaining = deadline - time.monotonic()
            if not missing:
                return
            if remaining <= 0:
                break
            time.sleep(min(_STARTUP_POLL_SECONDS, remaining))
            self._registry.refresh(wait_until_unchanged=False)
        raise NoVersionLoadedError("; ".join(self._why_missing(name) for name in missing))

    def _why_missing(self, name: str) -> str:
        versions = self._registry.models[name].versions
        problems = [f"version {version} {text}" for version, text in versions.problems().items()]
        return f"no version of {name!r} could be loaded from {versions.base_path}: " + (
            "; ".join(problems) or "no folder there is named by a version number, like 1"
        )

    def _read_config_again(self) -> None:
        assert self._config_file is not None
        try:
            config = read_message(self._config_file, "ModelServerConfig", "--model_config_file")
            if config == self._config:
                return
            # Noted even if it is refused: one line in the log for each change, not for each look.
            self._config = config
            self._registry.configure(config)
            _LOGGER.info("configured again from %s", self._config_file)
        except ConfigError as error:
            _LOGGER.warning("%s", error)
        except StatusError as error:
            _LOGGER.warning("%s is refused: %s", self._config_file, error.message)

    def _every(self, seconds: float, look: Callable[[], None]) -> None:
        while not self._stopping.wait(seconds):
            try:
                look()
            except Exception:  # Whatever it is, the next look must not be lost with this one.
                _LOGGER.exception("a look for new versions failed")


def _port_unavailable(address: str) -> PortUnavailableError:
    return PortUnavailableError(
        f"cannot listen on {address}: is another program using the port? Port 0 takes any free one."
    )
