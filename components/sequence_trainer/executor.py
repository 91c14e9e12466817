"""The TFX door: the generic trainer executor, with the files of two more inputs."""

from typing import Any

from tfx import types
from tfx.components.trainer import executor as trainer_executor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import artifact_utils
from tfx.utils import io_utils

from bivrec_tf import features
from components.artifacts import file_patterns

SEQUENCES_KEY = "sequences"
ITEM_FEATURES_KEY = "item_features"
VALIDATION_FILES = "validation_files"
"""Key of `FnArgs.custom_config`: pattern of the validation sequences' files."""
ITEM_FEATURE_FILES = "item_feature_files"
"""Key of `FnArgs.custom_config`: patterns of the item features' files; empty without content."""
ITEM_FEATURES_URI = "item_features_uri"
"""Key of `FnArgs.custom_config`: URI of the item features; empty without content."""
TRAIN_SPLIT = features.TRAIN_SPLIT


class Executor(trainer_executor.GenericExecutor):
    """Runs the user's `run_fn`."""

    def _GetFnArgs(  # noqa: N802 - the hook of the generic executor
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> FnArgs:
        fn_args = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        validation = artifact_utils.get_split_uri(
            input_dict[SEQUENCES_KEY], features.VALIDATION_SPLIT
        )
        item_features = input_dict.get(ITEM_FEATURES_KEY) or []
        fn_args.custom_config = {
            **(fn_args.custom_config or {}),
            VALIDATION_FILES: io_utils.all_files_pattern(validation),
            ITEM_FEATURE_FILES: file_patterns(item_features),
            ITEM_FEATURES_URI: item_features[0].uri if item_features else "",
        }
        return fn_args
