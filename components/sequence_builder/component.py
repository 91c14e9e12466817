"""The TFX component that turns interactions into sequence examples."""

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.configuration import parse_config
from components.sequence_builder import executor
from components.sequence_builder.sequence_config import SequenceConfig


class SequenceBuilderSpec(types.ComponentSpec):
    """What goes in and comes out; see `SequenceBuilder`."""

    PARAMETERS = {executor.CONFIG_KEY: ExecutionParameter(type=str)}
    INPUTS = {
        executor.INTERACTIONS_KEY: ChannelParameter(type=standard_artifacts.Examples),
        executor.ITEMS_KEY: ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = {executor.SEQUENCES_KEY: ChannelParameter(type=standard_artifacts.Examples)}


class SequenceBuilder(base_beam_component.BaseBeamComponent):
    """Cleans, filters and splits interactions, and writes sequence examples.

    Output `sequences`: `Examples` with the splits `train`, `validation` and `test`, the features
    of `bivrec_tf.features`, and the counts as JSON in the custom property `counts`.
    """

    SPEC_CLASS = SequenceBuilderSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        interactions: types.BaseChannel,
        config: str,
        items: types.BaseChannel | None = None,
    ):
        """Builds the component.

        Args:
            interactions: `Examples` of the interactions table.
            config: a `SequenceConfig` as JSON.
            items: `Examples` of the item table, to count interactions without an item row.

        Raises:
            ConfigError: the configuration is not valid.
        """
        parse_config(SequenceConfig, config)
        spec = SequenceBuilderSpec(
            interactions=interactions,
            items=items,
            config=config,
            sequences=types.Channel(type=standard_artifacts.Examples),
        )
        super().__init__(spec=spec)
