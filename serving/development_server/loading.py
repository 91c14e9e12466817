"""From a version's folder to a version that answers: loaded, warmed up, batching if asked to."""

import logging
import time
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.development_server import examples
from serving.development_server.batching import Batcher
from serving.development_server.predict import predict
from serving.development_server.servable import LoadError, Servable, one_line
from serving.development_server.status import StatusError
from serving.warm_up import read_warm_up_requests

_LOGGER = logging.getLogger(__name__)


class Loader:
    """Loads versions.

    Args:
        max_input_bytes: How much memory the inputs of a warm-up request may take.
        warm_up: Whether to run the warm-up requests that a version brings along.
        batcher: What puts requests together; None for each on its own.
        session_config: Threads and the like; None for TensorFlow's own choice.
    """

    def __init__(
        self,
        max_input_bytes: int,
        warm_up: bool = True,
        batcher: Batcher | None = None,
        session_config: tf.compat.v1.ConfigProto | None = None,
    ):
        self._max_input_bytes = max_input_bytes
        self._warm_up = warm_up
        self._batcher = batcher
        self._session_config = session_config

    def __call__(self, name: str, directory: Path, version: int) -> Servable:
        """Returns the version.

        Args:
            name: The model's name, for the log.
            directory: The version's folder.
            version: Its number.

        Raises:
            LoadError: If it cannot be loaded, or a warm-up request fails.
        """
        servable = Servable(directory, version, self._session_config)
        if self._warm_up:
            start = time.perf_counter()
            count = self._replay(servable)
            if count:
                seconds = time.perf_counter() - start
                _LOGGER.info(
                    "%s version %d: %d warm-up requests in %.2f s", name, version, count, seconds
                )
        if self._batcher is not None:
            servable.run = self._batcher.wrap(servable.run)
        return servable

    def _replay(self, servable: Servable) -> int:
        count = 0
        try:
            for log in read_warm_up_requests(servable.directory):
                self._run(servable, log)
                count += 1
        except StatusError as error:
            raise LoadError(
                f"warm-up request {count} failed: {error.code.name}: {error.message}"
            ) from error
        except (tf.errors.OpError, ValueError, OSError) as error:
            raise LoadError(f"warm-up request {count} failed: {one_line(error)}") from error
        return count

    def _run(self, servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            predict(servable, log.predict_log.request, self._max_input_bytes)
        elif kind == "classify_log":
            examples.classify(servable, log.classify_log.request)
        elif kind == "regress_log":
            examples.regress(servable, log.regress_log.request)
        elif kind == "multi_inference_log":
            examples.multi_inference(servable, log.multi_inference_log.request)
        elif kind is not None:
            raise ValueError(f"Unsupported log_type for warmup: {kind}")
