"""The TFX component that gives a served model an updated item table."""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.model_refresher import MAX_RETIRED, executor


class ModelRefresherSpec(types.ComponentSpec):
    """What goes in and comes out; see `ModelRefresher`."""

    PARAMETERS = {executor.MAX_RETIRED_KEY: ExecutionParameter(type=float)}
    INPUTS = {
        executor.SERVED_KEY: ChannelParameter(type=standard_artifacts.Model),
        executor.ITEM_FEATURES_KEY: ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {
        executor.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        executor.MODEL_RUN_KEY: ChannelParameter(type=standard_artifacts.ModelRun),
        executor.BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class ModelRefresher(base_component.BaseComponent):
    """New items get rows of the index, items that are gone are retired; nothing is trained.

    Outputs: `model`, laid out as the Trainer's; `model_run`, with the answers that the
    ServingValidator replays; `blessing`, granted if items whose content did not change score as
    the served model scores them, with what was done as `report.json` and custom property.
    """

    SPEC_CLASS = ModelRefresherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        served: types.BaseChannel,
        item_features: types.BaseChannel,
        max_retired: float = MAX_RETIRED,
    ):
        """Builds the component.

        Args:
            served: the version folder that is served now.
            item_features: features of the updated item table.
            max_retired: share of the listed items that may be retired at once.
        """
        spec = ModelRefresherSpec(
            served=served,
            item_features=item_features,
            max_retired=max_retired,
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        super().__init__(spec=spec)
