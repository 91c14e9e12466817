"""`tensorflow.serving.PredictionService`, over gRPC."""

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.development_server.core import Core
from serving.development_server.op_errors import errors_as_status

_ENTRYPOINT = "GRPC"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers predictions.

    Args:
        core: What answers them.
    """

    def __init__(self, core: Core):
        self._core = core

    def Predict(  # noqa: N802 (the names are the protocol's)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature of a model."""
        with errors_as_status(context, "Predict"):
            return self._core.answer(
                "Predict",
                _ENTRYPOINT,
                request.model_spec.name,
                lambda: self._core.predict(request),
            )

    def Classify(  # noqa: N802
        self, request: classification_pb2.ClassificationRequest, context: grpc.ServicerContext
    ) -> classification_pb2.ClassificationResponse:
        """Runs a signature of classification."""
        with errors_as_status(context, "Classify"):
            return self._core.answer(
                "Classify",
                _ENTRYPOINT,
                request.model_spec.name,
                lambda: self._core.classify(request),
            )

    def Regress(  # noqa: N802
        self, request: regression_pb2.RegressionRequest, context: grpc.ServicerContext
    ) -> regression_pb2.RegressionResponse:
        """Runs a signature of regression."""
        with errors_as_status(context, "Regress"):
            return self._core.answer(
                "Regress",
                _ENTRYPOINT,
                request.model_spec.name,
                lambda: self._core.regress(request),
            )

    def MultiInference(  # noqa: N802
        self, request: inference_pb2.MultiInferenceRequest, context: grpc.ServicerContext
    ) -> inference_pb2.MultiInferenceResponse:
        """Runs several signatures of classification and regression on the same examples."""
        with errors_as_status(context, "MultiInference"):
            name = request.tasks[0].model_spec.name if request.tasks else ""
            return self._core.answer(
                "MultiInference",
                _ENTRYPOINT,
                name,
                lambda: self._core.multi_inference(request),
            )

    def GetModelMetadata(  # noqa: N802
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of a model, as they are written in its `saved_model.pb`."""
        with errors_as_status(context, "GetModelMetadata"):
            return self._core.metadata(request)
