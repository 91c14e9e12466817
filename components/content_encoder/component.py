"""The TFX component that turns item rows into item features."""

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.configuration import parse_config
from components.content_encoder import executor
from components.content_encoder.content_config import ContentConfig


class ContentEncoderSpec(types.ComponentSpec):
    """What goes in and comes out; see `ContentEncoder`."""

    PARAMETERS = {
        executor.CONFIG_KEY: ExecutionParameter(type=str),
        executor.CACHE_DIRECTORY_KEY: ExecutionParameter(type=str),
        executor.EXTERNAL_FILES_KEY: ExecutionParameter(type=str),
    }
    INPUTS = {executor.ITEMS_KEY: ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {executor.ITEM_FEATURES_KEY: ChannelParameter(type=standard_artifacts.Examples)}


class ContentEncoder(base_beam_component.BaseBeamComponent):
    """Encodes texts and pictures, passes features through; one vector for each modality.

    Output `item_features`: `Examples` with the split `all`, the item features of
    `bivrec_tf.features`, `modalities.json` beside the split (see `modalities_file`), and the
    counts as JSON in the custom property `counts`.
    """

    SPEC_CLASS = ContentEncoderSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self, items: types.BaseChannel, config: str, cache_dir: str, external_files: str = ""
    ):
        """Builds the component.

        Args:
            items: `Examples` of the item table.
            config: a `ContentConfig` as JSON.
            cache_dir: where encoded contents are kept between runs; must be seen by all workers.
            external_files: changes whenever a file does that the items or the configuration only
                name, so that the execution is not taken for one that was done before; see
                `external_files.fingerprint`.

        Raises:
            ConfigError: the configuration is not valid.
        """
        parse_config(ContentConfig, config)
        spec = ContentEncoderSpec(
            items=items,
            config=config,
            cache_dir=cache_dir,
            external_files=external_files,
            item_features=types.Channel(type=standard_artifacts.Examples),
        )
        super().__init__(spec=spec)
