"""The small pipeline that gives a served model an updated item table, without training."""

from pathlib import Path

from rich.console import Console
from tfx.dsl.components.common.importer import Importer
from tfx.types import standard_artifacts

from bivrec_tf.errors import ConfigError
from components.content_encoder.content_config import PrecomputedModality
from components.idempotent_pusher.executor import newest_version
from components.model_refresher import MAX_RETIRED
from components.model_refresher.component import ModelRefresher
from pipeline.config import PipelineConfig, load_config
from pipeline.dag import PipelinePaths, encode_content, read_items, served_and_pushed, validated
from pipeline.local_runner import Output, claim, run_components
from pipeline.results import RefreshResult, read_refresh_result


def create_refresh_components(
    config: PipelineConfig,
    paths: PipelinePaths,
    served: str,
    requested_at: str = "",
    max_retired: float = MAX_RETIRED,
) -> list:
    """Creates the nodes of a refresh.

    Args:
      config: The configuration that the served model was trained with; its item table is the
        updated one.
      paths: Where a run keeps what.
      served: Version folder that is served now.
      requested_at: See `IdempotentPusher`.
      max_retired: Share of the listed items that may be retired at once.

    Returns:
      TFX nodes.
    """
    items = read_items(config)
    served_model = Importer(source_uri=served, artifact_type=standard_artifacts.Model).with_id(
        "ServedModel"
    )
    base = served_model.outputs["result"]
    encoder, content_validator = encode_content(config, paths, items, base)
    refresher = ModelRefresher(
        served=base, item_features=encoder.outputs["item_features"], max_retired=max_retired
    )
    return [
        items,
        *validated(items, "Item"),
        served_model,
        encoder,
        content_validator,
        refresher,
        *served_and_pushed(config, paths, refresher, refresher.outputs["blessing"], requested_at),
    ]


def refresh_locally(
    directory: Path,
    items: Path,
    console: Console,
    config_path: Path | None = None,
    max_retired: float = MAX_RETIRED,
) -> RefreshResult:
    """Refreshes the model that is served from an output folder.

    Args:
      directory: The output folder of `run_locally`.
      items: The updated item table, with the columns of the one that the model was trained with.
      console: Where progress is shown.
      config_path: Configuration; that of the folder's latest run without it.
      max_retired: Share of the listed items that may be retired at once.

    Returns:
      What was done and found.

    Raises:
      ConfigError: There is no model to refresh, or it has no multimodal view.
      DataError: The item table is not what was expected.
    """
    output = Output(directory.resolve())
    path = config_path or output.configuration
    if not path.exists():
        raise ConfigError(f"{path} does not exist: nothing was run in {directory} yet")
    config = load_config(path)
    if not config.modalities:
        raise ConfigError(
            f"{path}: no modalities: without content nothing is known of a new item. Add "
            "modalities and train once."
        )
    claim(output, config)
    for modality in config.modalities:
        if isinstance(modality, PrecomputedModality) and modality.file and not modality.ids:
            raise ConfigError(
                f"{path}: the rows of {modality.file} belong to the items by their order in the "
                "table, which another table need not have. Give its `ids`."
            )
    source = config.items.model_copy(update={"path": str(items.resolve())})
    config = config.model_copy(update={"items": source})
    paths = output.paths(config)
    served = newest_version(paths.push)
    if served is None:
        raise ConfigError(f"{paths.push} holds no pushed model: `bivrec run` pushes the first")
    run_components(
        output,
        config,
        console,
        lambda requested_at: create_refresh_components(
            config, paths, served, requested_at, max_retired
        ),
    )
    return read_refresh_result(output.metadata)
