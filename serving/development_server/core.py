"""The one path from a request message to its answer, whichever door it came through."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.development_server import examples
from serving.development_server.metrics import OTHER_MODEL, Metrics
from serving.development_server.model_registry import ModelRegistry
from serving.development_server.model_service import model_status
from serving.development_server.op_errors import from_tensorflow, tensorflow_code
from serving.development_server.predict import predict
from serving.development_server.servable import Servable
from serving.development_server.status import StatusError, internal_error, invalid_argument

SIGNATURE_DEF = "signature_def"

_Answer = TypeVar("_Answer")


class Core:
    """Answers request messages with the served models and counts what it has answered.

    Args:
        registry: The served models.
        metrics: Where to count.
        max_input_bytes: How much memory the inputs of one request may take.
        concurrency: How many requests are worked on at the same time; the others wait.
    """

    def __init__(
        self, registry: ModelRegistry, metrics: Metrics, max_input_bytes: int, concurrency: int
    ):
        self.registry = registry
        self.metrics = metrics
        self._max_input_bytes = max_input_bytes
        self._turn = threading.Semaphore(concurrency)

    def answer(
        self, api: str, entrypoint: str, model_name: str, work: Callable[[], _Answer]
    ) -> _Answer:
        """Does the work of one request, and counts it under its outcome.

        Args:
            api: `Predict`, `Classify`, `Regress` or `MultiInference`.
            entrypoint: `GRPC` or `REST`.
            model_name: The model that the request names.
            work: Returns the answer; calls the methods below.

        Raises:
            StatusError: And nothing else, whatever the request holds.
        """
        start = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            with self._turn:
                return work()
        except StatusError as error:
            code = error.code
            raise
        except tf.errors.OpError as error:
            code = tensorflow_code(error)
            raise from_tensorflow(error) from error
        except Exception as error:  # A bug must reach the log and the caller, and end nothing.
            code = grpc.StatusCode.INTERNAL
            raise internal_error(api, error) from error
        finally:
            known = model_name in self.registry.models
            self.metrics.record(
                model_name if known else OTHER_MODEL,
                api,
                entrypoint,
                code,
                time.perf_counter() - start,
            )

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature of a model. May raise `StatusError` or `tf.errors.OpError`."""
        return predict(self._servable(request), request, self._max_input_bytes)

    def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Runs a signature of classification. May raise as `predict`."""
        return examples.classify(self._servable(request), request)

    def regress(
        self, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """Runs a signature of regression. May raise as `predict`."""
        return examples.regress(self._servable(request), request)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Runs several signatures on the same examples. May raise as `predict`."""
        # The first task's model answers; without a task the lookup refuses the empty name.
        model_spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        return examples.multi_inference(self.registry.servable(model_spec), request)

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of a model, as they are written in its `saved_model.pb`.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND.
        """
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        servable = self.registry.servable(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of a model's versions.

        Raises:
            StatusError: INVALID_ARGUMENT or NOT_FOUND.
        """
        return model_status(self.registry, request)

    def _servable(
        self,
        request: predict_pb2.PredictRequest
        | classification_pb2.ClassificationRequest
        | regression_pb2.RegressionRequest,
    ) -> Servable:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        return self.registry.servable(request.model_spec)
