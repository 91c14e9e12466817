"""The served models: their versions, their labels, and how the set of them changes."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.development_server.model_config import check_model_config
from serving.development_server.servable import Servable
from serving.development_server.status import StatusError, invalid_argument
from serving.development_server.versions import State, VersionManager, VersionState

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A model: its versions, and the versions that its labels stand for."""

    name: str
    versions: VersionManager
    labels: Mapping[str, int]


class ModelRegistry:
    """Finds the version that answers a request, and changes what is served.

    Looking up can be done from any thread at any time; `configure` and `refresh` wait for
    each other.

    Args:
        load: Makes a servable of a model's name, a version's folder and its number, or raises
            `LoadError`.
        allow_labels_for_unavailable_models: Whether a label that is not in use may be given to
            a version that is not loaded.
    """

    def __init__(
        self,
        load: Callable[[str, Path, int], Servable],
        allow_labels_for_unavailable_models: bool = False,
    ):
        self._load = load
        self._allow_early_labels = allow_labels_for_unavailable_models
        self._changing = threading.Lock()
        self._models: dict[str, ServedModel] = {}
        self._unreadable: dict[str, str] = {}

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The served models by name."""
        return self._models

    def servable(self, model_spec: model_pb2.ModelSpec) -> Servable:
        """Returns the loaded version that a request asks for.

        Raises:
            StatusError: INVALID_ARGUMENT without a name or with an unknown version label,
                NOT_FOUND for a model that is not served or a version that is not loaded.
        """
        if not model_spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        model = self._models.get(model_spec.name)
        choice = model_spec.WhichOneof("version_choice")
        found: Servable | None
        if choice is None:
            wanted = f"Latest({model_spec.name})"
            found = None if model is None else model.versions.current
        else:
            version = model_spec.version.value
            if choice == "version_label":
                version = self._version_of_label(model, model_spec.version_label)
            wanted = f"Specific({model_spec.name}, {version})"
            found = None if model is None else model.versions.loaded(version)
        if found is None:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}"
            )
        return found

    def states(self, model_spec: model_pb2.ModelSpec) -> Mapping[int, VersionState]:
        """Returns the state of the version asked for, or of all that were ever tried.

        A label is ignored here, as TensorFlow Serving does.

        Raises:
            StatusError: NOT_FOUND if there is none.
        """
        model = self._models.get(model_spec.name)
        states = {} if model is None else model.versions.states
        if model_spec.WhichOneof("version_choice") == "version":
            version = model_spec.version.value
            if version not in states:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Could not find version {version} of model {model_spec.name}",
                )
            return {version: states[version]}
        if not states:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find any versions of model {model_spec.name}",
            )
        return states

    def refresh(self, wait_until_unchanged: bool = True) -> None:
        """Looks for new and deleted versions of every model once.

        Args:
            wait_until_unchanged: As for `VersionManager.refresh`.
        """
        with self._changing:
            for model in self._models.values():
                self._refresh(model, wait_until_unchanged)

    def configure(
        self, config: model_server_config_pb2.ModelServerConfig, wait_for_models: bool = True
    ) -> None:
        """Serves the models of `config`, and no others. If it fails, nothing has changed.

        Args:
            config: The models, their base paths, version policies and labels.
            wait_for_models: Whether every model that is new must have a version that loads.

        Raises:
            StatusError: INVALID_ARGUMENT for a configuration that contradicts itself,
                FAILED_PRECONDITION for a label on a version that is not loaded, NOT_FOUND or
                UNKNOWN for a new model of which no version can be loaded.
        """
        check_model_config(config)
        with self._changing:
            models = {}
            for model_config in config.model_config_list.config:
                old = self._models.get(model_config.name)
                self._check_labels(model_config, old)
                models[model_config.name] = self._model(model_config, old)
            if wait_for_models:
                for name, model in models.items():
                    if (
                        name not in self._models
                        or model.versions is not self._models[name].versions
                    ):
                        self._require_version(model)
            leaving = [
                model.versions
                for name, model in self._models.items()
                if name not in models or models[name].versions is not model.versions
            ]
            self._models = models
            for versions in leaving:
                versions.unload()
            for model_config in config.model_config_list.config:
                model = models[model_config.name]
                # A policy that lets versions go takes effect only now that nothing can fail.
                model.versions.policy = model_config.model_version_policy
                self._refresh(model, wait_until_unchanged=False)

    def _model(
        self, config: model_server_config_pb2.ModelConfig, old: ServedModel | None
    ) -> ServedModel:
        base_path = Path(config.base_path)
        if old is not None and old.versions.base_path == base_path:
            versions = old.versions
        else:
            name = config.name
            versions = VersionManager(
                base_path,
                config.model_version_policy,
                lambda directory, version: self._load(name, directory, version),
            )
        return ServedModel(config.name, versions, dict(config.version_labels))

    def _check_labels(
        self, config: model_server_config_pb2.ModelConfig, old: ServedModel | None
    ) -> None:
        states = {} if old is None else old.versions.states
        labels = {} if old is None else old.labels
        for label, version in sorted(config.version_labels.items()):
            if self._allow_early_labels and labels.get(label, version) == version:
                continue
            if version not in states or states[version].state is not State.AVAILABLE:
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {config.name}, which "
                    f"is not currently available for inference",
                )

    def _require_version(self, model: ServedModel) -> None:
        base_path = model.versions.base_path
        try:
            model.versions.refresh(wait_until_unchanged=False)
        except OSError as error:
            raise invalid_argument(
                f"Could not find base path {base_path} for servable {model.name} with error "
                f"{error.strerror}"
            ) from error
        if model.versions.current is not None:
            return
        problems = model.versions.problems()
        if not problems:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Unable to find a numerical version path for servable {model.name} at: "
                f"{base_path}",
            )
        listed = ", ".join(
            f"{{name: {model.name} version: {version}}} due to error: {text}"
            for version, text in sorted(problems.items())
        )
        raise StatusError(
            grpc.StatusCode.UNKNOWN, f"1 model(s) did not become available: {{{listed}}}"
        )

    def _refresh(self, model: ServedModel, wait_until_unchanged: bool) -> None:
        try:
            model.versions.refresh(wait_until_unchanged)
            problem = ""
        except OSError as error:  # A file share that is away for a moment, for instance.
            problem = f"cannot look for versions of {model.name}: {error}"
        if problem and self._unreadable.get(model.name) != problem:
            _LOGGER.warning("%s", problem)
        self._unreadable[model.name] = problem

    @staticmethod
    def _version_of_label(model: ServedModel | None, label: str) -> int:
        if model is None or label not in model.labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return model.labels[label]
