"""The TFX door: artifacts in, `build_sequences`, artifact with splits and counts out."""

import os
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from bivrec_tf import features
from components.artifacts import COUNTS_PROPERTY, file_patterns
from components.beam_support import log_counts
from components.configuration import parse_config
from components.sequence_builder.build_sequences import build_sequences, check_splits
from components.sequence_builder.sequence_config import SequenceConfig

INTERACTIONS_KEY = "interactions"
ITEMS_KEY = "items"
CONFIG_KEY = "config"
SEQUENCES_KEY = "sequences"


class Executor(BaseBeamExecutor):
    """Builds sequence examples."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the splits `train`, `validation` and `test`.

        Raises:
            ConfigError: the configuration is not valid.
            DataError: the interactions cannot be split as configured.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        config = parse_config(SequenceConfig, exec_properties[CONFIG_KEY])
        sequences = artifact_utils.get_single_instance(output_dict[SEQUENCES_KEY])
        sequences.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
        examples_utils.set_payload_format(sequences, example_gen_pb2.FORMAT_TF_EXAMPLE)
        counts = build_sequences(
            interactions=file_patterns(input_dict[INTERACTIONS_KEY]),
            items=file_patterns(input_dict[ITEMS_KEY]) if input_dict.get(ITEMS_KEY) else None,
            outputs={
                split: artifact_utils.get_split_uri([sequences], split) for split in features.SPLITS
            },
            # Beside the splits: the one place that surely all workers can write to.
            work_directory=os.path.join(sequences.uri, "_work"),
            config=config,
            make_pipeline=self._make_beam_pipeline,
        )
        sequences.set_string_custom_property(COUNTS_PROPERTY, log_counts("SequenceBuilder", counts))
        check_splits(counts, config)
