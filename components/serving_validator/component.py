"""The TFX component that decides whether the exported model may be served."""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.serving_validator import executor


class ServingValidatorSpec(types.ComponentSpec):
    """What goes in and comes out; see `ServingValidator`."""

    PARAMETERS = {executor.TOLERANCE_KEY: ExecutionParameter(type=float)}
    INPUTS = {
        executor.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        executor.MODEL_RUN_KEY: ChannelParameter(type=standard_artifacts.ModelRun),
    }
    OUTPUTS = {executor.BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingValidator(base_component.BaseComponent):
    """Starts a real server on the model and compares its answers with the offline ones.

    Output `blessing`: the `InfraBlessing` that the Pusher asks for, with the verdict as
    `verdict.json` beside it and as the custom property `verdict`.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self, model: types.BaseChannel, model_run: types.BaseChannel, tolerance: float = 1e-4
    ):
        """Builds the component.

        Args:
            model: the exported model.
            model_run: the training run, with the offline answers.
            tolerance: relative difference of scores that still counts as equal.
        """
        spec = ServingValidatorSpec(
            model=model,
            model_run=model_run,
            tolerance=tolerance,
            blessing=types.Channel(type=standard_artifacts.InfraBlessing),
        )
        super().__init__(spec=spec)
