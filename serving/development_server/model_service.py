"""`tensorflow.serving.ModelService`: GetModelStatus and HandleReloadConfigRequest."""

import logging

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)

from serving.development_server.model_registry import ModelRegistry
from serving.development_server.op_errors import errors_as_status
from serving.development_server.status import StatusError, invalid_argument

_LOGGER = logging.getLogger(__name__)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Tells which versions are served, and changes which models are.

    Args:
        registry: The served models.
    """

    def __init__(self, registry: ModelRegistry):
        self._registry = registry

    def GetModelStatus(  # noqa: N802 (the name is the protocol's)
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of the version asked for, or of all that were ever tried."""
        with errors_as_status(context, "GetModelStatus"):
            return model_status(self._registry, request)

    def HandleReloadConfigRequest(  # noqa: N802 (the name is the protocol's)
        self,
        request: model_management_pb2.ReloadConfigRequest,
        context: grpc.ServicerContext,
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves the models of the request instead of the present ones, without an interruption."""
        with errors_as_status(context, "HandleReloadConfigRequest"):
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                    "ModelConfigList is currently supported"
                )
            try:
                self._registry.configure(request.config)
            except StatusError as error:
                _LOGGER.warning("a new configuration was refused: %s", error.message)
                raise
            _LOGGER.info("configured to serve: %s", ", ".join(self._registry.models) or "nothing")
            return model_management_pb2.ReloadConfigResponse()


def model_status(
    registry: ModelRegistry, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Answers a request for a model's status.

    Raises:
        StatusError: INVALID_ARGUMENT without a model or with an unknown label, NOT_FOUND for a
            model or a version that was never tried.
    """
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    states = registry.states(request.model_spec)
    response = get_model_status_pb2.GetModelStatusResponse()
    # Newest first, as TensorFlow Serving lists them.
    for version in sorted(states, reverse=True):
        status = response.model_version_status.add()
        status.version = version
        status.state = states[version].state.value
        status.status.SetInParent()  # OK is said, not left out.
        if states[version].error:
            status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
            status.status.error_message = states[version].error
    return response
