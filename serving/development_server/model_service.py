"""`tensorflow.serving.ModelService`: GetModelStatus."""

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.development_server.model_lookup import ServedModel
from serving.development_server.status import StatusError, errors_as_status, invalid_argument


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Tells which versions are served; the methods not defined here answer UNIMPLEMENTED.

    Args:
        model: The served model.
    """

    def __init__(self, model: ServedModel):
        self._model = model

    def GetModelStatus(  # noqa: N802 (the name is the protocol's)
        self,
        request: get_model_status_pb2.GetModelStatusRequest,
        context: grpc.ServicerContext,
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the state of the version asked for, or of all that were ever tried."""
        with errors_as_status(context, "GetModelStatus"):
            return self._status(request)

    def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        model_spec = request.model_spec
        states = self._model.versions.states if model_spec.name == self._model.name else {}
        if model_spec.WhichOneof("version_choice") == "version":
            version = model_spec.version.value
            if version not in states:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Could not find version {version} of model {model_spec.name}",
                )
            states = {version: states[version]}
        elif not states:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find any versions of model {model_spec.name}",
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(states):
            status = response.model_version_status.add()
            status.version = version
            status.state = states[version].state.value
            if states[version].error:
                status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
                status.status.error_message = states[version].error
        return response
