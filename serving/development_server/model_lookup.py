"""From the `ModelSpec` of a request to the version that answers it."""

import dataclasses

import grpc
from tensorflow_serving.apis import model_pb2

from serving.development_server.servable import Servable
from serving.development_server.status import StatusError, invalid_argument
from serving.development_server.versions import VersionManager


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """The one model of a server: its name, and its versions."""

    name: str
    versions: VersionManager

    def servable(self, model_spec: model_pb2.ModelSpec) -> Servable:
        """Returns the loaded version that a request asks for.

        Raises:
            StatusError: INVALID_ARGUMENT without a name or with a version label (this server
                has none), NOT_FOUND for another model or a version that is not loaded.
        """
        if not model_spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = model_spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid_argument(
                f"Unrecognized servable version label: {model_spec.version_label}"
            )
        current = self.versions.current
        wanted = f"Latest({model_spec.name})"
        right_version = True
        if choice == "version" and current is not None:
            wanted = f"Specific({model_spec.name}, {model_spec.version.value})"
            right_version = model_spec.version.value == current.version
        if current is None or model_spec.name != self.name or not right_version:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}"
            )
        return current
