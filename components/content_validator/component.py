"""The TFX component that compares items' content with what a model was trained with."""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.content_validator import executor


class ContentValidatorSpec(types.ComponentSpec):
    """What goes in and comes out; see `ContentValidator`."""

    PARAMETERS: dict[str, ExecutionParameter] = {}
    INPUTS = {
        executor.ITEM_FEATURES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        executor.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {
        executor.ANOMALIES_KEY: ChannelParameter(type=standard_artifacts.ExampleAnomalies),
    }


class ContentValidator(base_component.BaseComponent):
    """Says when content drifted: modalities that vanish, another encoder, half a table.

    Output `anomalies`: the findings in words, as `drift.json` and the custom property `drift`.
    They are reported and stop nothing: whether a model is good enough the gates decide.
    """

    SPEC_CLASS = ContentValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, item_features: types.BaseChannel, model: types.BaseChannel):
        """Builds the component.

        Args:
            item_features: features of the items of this run.
            model: the model to compare with; none in a first run.
        """
        spec = ContentValidatorSpec(
            item_features=item_features,
            model=model,
            anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
        )
        super().__init__(spec=spec)
