"""The TFX component that trains: the standard Trainer with two more inputs."""

from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter
from tfx.utils import json_utils

from components.sequence_trainer import executor


class SequenceTrainerSpec(types.ComponentSpec):
    """What goes in and comes out; see `SequenceTrainer`."""

    PARAMETERS = standard_component_specs.TrainerSpec.PARAMETERS
    INPUTS = {
        **standard_component_specs.TrainerSpec.INPUTS,
        executor.SEQUENCES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        executor.ITEM_FEATURES_KEY: ChannelParameter(
            type=standard_artifacts.Examples, optional=True
        ),
    }
    OUTPUTS = standard_component_specs.TrainerSpec.OUTPUTS
    TYPE_ANNOTATION = standard_component_specs.TrainerSpec.TYPE_ANNOTATION


class SequenceTrainer(base_component.BaseComponent):
    """Runs a `run_fn` on transformed training examples, held-out sequences and item features.

    The standard Trainer takes one channel of examples; a recommender with content needs the item
    features too, and held-out items that the vocabulary does not hold, so the sequences as they
    were before Transform. Outputs `model` and `model_run` as the standard Trainer does.
    """

    SPEC_CLASS = SequenceTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        transformed_examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        sequences: types.BaseChannel,
        item_features: types.BaseChannel | None,
        run_fn: str,
        custom_config: dict[str, Any],
    ):
        """Builds the component.

        Args:
            transformed_examples: the transformed training split.
            transform_graph: Transform's graph and vocabulary.
            sequences: sequence examples of all splits, not transformed.
            item_features: item features; none to train the id view alone.
            run_fn: import path of the training function, which gets TFX's `FnArgs`.
            custom_config: JSON-serialisable configuration for `run_fn`.
        """
        # The run function reads all splits it needs from its two channels; TFX insists on names.
        spec = SequenceTrainerSpec(
            examples=transformed_examples,
            transform_graph=transform_graph,
            sequences=sequences,
            item_features=item_features,
            train_args=trainer_pb2.TrainArgs(splits=[executor.TRAIN_SPLIT]),
            eval_args=trainer_pb2.EvalArgs(splits=[executor.TRAIN_SPLIT]),
            run_fn=run_fn,
            custom_config=json_utils.dumps(custom_config),
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
        )
        super().__init__(spec=spec)
