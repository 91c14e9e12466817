"""`tensorflow.serving.PredictionService`: Predict and GetModelMetadata."""

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.development_server.model_lookup import ServedModel
from serving.development_server.predict import predict
from serving.development_server.status import errors_as_status, invalid_argument

_SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers predictions; the methods not defined here answer UNIMPLEMENTED.

    Args:
        model: The served model.
        max_input_bytes: How much memory the inputs of one request may take.
    """

    def __init__(self, model: ServedModel, max_input_bytes: int):
        self._model = model
        self._max_input_bytes = max_input_bytes

    def Predict(  # noqa: N802 (the name is the protocol's)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs a signature of the model."""
        with errors_as_status(context, "Predict"):
            servable = self._model.servable(request.model_spec)
            return predict(servable, request, self._max_input_bytes)

    def GetModelMetadata(  # noqa: N802 (the name is the protocol's)
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns the signatures of the model, as they are written in its `saved_model.pb`."""
        with errors_as_status(context, "GetModelMetadata"):
            return self._metadata(request)

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        servable = self._model.servable(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response
