"""`PipelineConfig`: everything about a run that is not code, read from YAML."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from bivrec_tf.config import ExportConfig, ModelConfig, StrictModel, TrainingConfig
from bivrec_tf.errors import ConfigError
from components.configuration import describe_validation_error
from components.content_encoder.content_config import (
    ContentConfig,
    ImageModality,
    Modality,
    PrecomputedModality,
    TextModality,
)
from components.sequence_builder.sequence_config import SequenceConfig


class TableSource(StrictModel):
    """Where one of the user's tables is, and what its columns are called."""

    path: str = Field(
        description="A file or a glob of files: .parquet, .csv, .tsv or .tfrecord. Relative paths "
        "start at the configuration file's folder."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Canonical name -> your column's name, where they differ.",
    )


class ItemSource(TableSource):
    """The item table."""

    title: str | None = Field(None, description="Column to show to people, for `recommend`.")


class GateConfig(StrictModel):
    """What a model must reach, on the test split, to be pushed."""

    minimum_gain_over_popularity: float = Field(
        0.0, description="Recall@20 and NDCG@20 must exceed popularity's by more than this."
    )
    tolerance_to_blessed: float = Field(
        0.005, ge=0, description="How far they may fall below the latest blessed model's."
    )


class ServingConfig(StrictModel):
    """How the exported model is checked and where it is pushed."""

    model_name: str = Field("recommender", pattern=r"^[A-Za-z0-9_-]+$")
    push_directory: str | None = Field(
        None, description="Base path of the model server; `<output>/serving/<model_name>` without."
    )
    validation_requests: int = Field(100, ge=1, description="Requests replayed before a push.")
    score_tolerance: float = Field(1e-4, gt=0, description="Relative, served against offline.")


class ResourcesConfig(StrictModel):
    """What one component asks of a cluster."""

    cpu: str | None = Field(None, description="CPU limit, such as '4'.")
    memory: str | None = Field(None, description="Memory limit, such as '16Gi'.")
    gpu: int = Field(0, ge=0, description="Number of accelerators.")
    gpu_type: str = Field("nvidia.com/gpu", description="Kind of accelerator.")
    image: str | None = Field(None, description="Image of this component; the default without.")


class KubeflowConfig(StrictModel):
    """How the pipeline runs on Kubeflow."""

    image: str = Field("bivrec-tf:latest", description="Image that all components run in.")
    pipeline_root: str = Field(
        "gs://your-bucket/bivrec", description="Where artifacts go; seen by all components."
    )
    data_root: str | None = Field(
        None,
        description="Folder, in a bucket, that holds the tables; their paths' last parts are "
        "looked for there. Paths that are URIs already stay as they are.",
    )
    resources: dict[str, ResourcesConfig] = Field(
        default_factory=dict, description="By component id, such as `Trainer`."
    )


NonEmpty = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class PipelineConfig(StrictModel):
    """One pipeline: data, model, gates, serving. See `docs/own-data.md`."""

    name: NonEmpty
    interactions: TableSource
    items: ItemSource
    modalities: tuple[Modality, ...] = Field(
        default=(), description="Content of the multimodal view; none: train `views: [id]`."
    )
    content_cache_gib: float = Field(
        10.0,
        ge=0,
        description="Limit of the cache of encoded content, in GiB: after a run, what was not used "
        "for the longest time is removed. What the run itself used always stays.",
    )
    sequences: SequenceConfig = SequenceConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    export: ExportConfig = ExportConfig()
    serving: ServingConfig = ServingConfig()
    beam_pipeline_args: tuple[str, ...] = Field(
        (
            # By its full name: plain DirectRunner first tries to download another runner.
            "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
            "--direct_running_mode=in_memory",
            # Unused by this runner. Where no argument says what workers are made of, TFX packs all
            # of itself for them in every component, and leaves that in the temporary folder.
            "--sdk_container_image=none",
        ),
        description="Passed to Beam untouched.",
    )
    kubeflow: KubeflowConfig = KubeflowConfig()

    @model_validator(mode="before")
    @classmethod
    def _history_is_said_once(cls, values):
        """`model.max_history` is the one place: windows are cut to what the model sees."""
        if not isinstance(values, dict):
            return values
        sequences = dict(values.get("sequences") or {})
        if "max_history" in sequences:
            raise ValueError("sequences.max_history: set model.max_history instead, it rules both")
        model = values.get("model") or {}
        longest = model.get("max_history", ModelConfig().max_history)
        if isinstance(longest, int) and longest > 0:
            sequences["max_history"] = longest
            sequences.setdefault("window_overlap", max(1, longest // 2))
        return {**values, "sequences": sequences}

    @model_validator(mode="after")
    def _views_have_content(self) -> "PipelineConfig":
        if "mm" in self.model.views and not self.modalities:
            raise ValueError(
                "model.views asks for the multimodal view ('mm') but `modalities` is empty: add a "
                "modality, or set `model: {views: [id]}`"
            )
        if self.modalities:
            # Its own checks: names that would be written twice.
            ContentConfig(modalities=self.modalities)
        return self

    @property
    def text_columns(self) -> list[str]:
        """Item columns that are read as text."""
        names = [self.items.title] if self.items.title else []
        for modality in self.modalities:
            if isinstance(modality, TextModality):
                names += [name for name in modality.columns if name not in names]
        return names

    @property
    def embedding_columns(self) -> list[str]:
        """Item columns that are read as vectors."""
        columns = [m.column for m in self.modalities if isinstance(m, PrecomputedModality)]
        return list(dict.fromkeys(column for column in columns if column is not None))

    @property
    def image_columns(self) -> list[str]:
        """Item columns that are read as pictures."""
        columns = [m.column for m in self.modalities if isinstance(m, ImageModality)]
        return list(dict.fromkeys(columns))

    @property
    def content(self) -> ContentConfig:
        """Configuration of the component that encodes the items' content."""
        return ContentConfig(
            modalities=self.modalities,
            picture_folder=_folder_of(self.items.path) if self.image_columns else "",
            cache_gib=self.content_cache_gib,
        )


def load_config(path: str | Path) -> PipelineConfig:
    """Reads a configuration file.

    Args:
      path: A YAML file.

    Returns:
      The configuration; relative paths of tables and feature files are resolved from the file's
      folder.

    Raises:
      ConfigError: The file cannot be read, is no YAML mapping, or a key is wrong; the message
        names file and key.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(values).__name__}")
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}:\n{describe_validation_error('', error)}") from error
    try:
        training = with_warm_start(config.training, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    serving = config.serving
    if serving.push_directory is not None:
        place = _resolve(serving.push_directory, path.parent)
        serving = serving.model_copy(update={"push_directory": place})
    return config.model_copy(
        update={
            "serving": serving,
            "training": training,
            "modalities": with_paths(config.modalities, lambda file: _resolve(file, path.parent)),
        }
        | {
            name: source.model_copy(update={"path": _resolve(source.path, path.parent)})
            for name, source in (("interactions", config.interactions), ("items", config.items))
        }
    )


def with_warm_start(training: TrainingConfig, folder: Path) -> TrainingConfig:
    """Returns a training configuration whose warm start names a version folder.

    Args:
      training: Its `warm_start` may also be a model server's base path: the newest version is
        meant, as it is now. The path is part of what a cached training is known by.
      folder: Where relative paths start.

    Raises:
      ConfigError: Training is to start at random, where a warm start does nothing.
    """
    if training.warm_start is None:
        return training
    if training.item_initialisation == "random":
        raise ConfigError(
            "training.warm_start needs item_initialisation: co_occurrence; a random start would "
            "use nothing of the other model"
        )
    place = _resolve(training.warm_start, folder)
    versions = [] if "://" in place else [p for p in Path(place).glob("*") if p.name.isdigit()]
    if versions:
        place = str(max(versions, key=lambda version: int(version.name)))
    return training.model_copy(update={"warm_start": place})


def dump_config(config: PipelineConfig) -> str:
    """Returns a configuration as YAML that `load_config` reads."""
    values = config.model_dump(mode="json", exclude={"sequences": {"max_history"}})
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def with_paths(
    modalities: Sequence[Modality], change: Callable[[str], str]
) -> tuple[Modality, ...]:
    """Returns modalities whose files are somewhere else.

    Args:
      modalities: Of a configuration.
      change: Path of a feature file, or of its ids -> the new one.
    """
    changed: list[Modality] = []
    for modality in modalities:
        if isinstance(modality, PrecomputedModality):
            files = {"file": modality.file, "ids": modality.ids}
            new = {name: change(file) for name, file in files.items() if file is not None}
            modality = modality.model_copy(update=new)
        changed.append(modality)
    return tuple(changed)


def _folder_of(table: str) -> str:
    """The folder of a table; of a glob pattern, that above its first wildcard."""
    parts = table.split("/")[:-1]
    fixed = itertools.takewhile(lambda part: not set(part) & set("*?["), parts)
    return "/".join(fixed) or ("/" if table.startswith("/") else ".")


def _resolve(table: str, folder: Path) -> str:
    return table if "://" in table else str((folder / table).resolve())
