"""The TFX door: artifacts in, `encode_items`, artifact with one split and counts out."""

import json
import os
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.artifacts import COUNTS_PROPERTY, file_patterns
from components.beam_support import log_counts
from components.configuration import parse_config
from components.content_encoder.content_config import ContentConfig
from components.content_encoder.encode_items import encode_items
from components.content_encoder.modalities_file import write_modalities

ITEMS_KEY = "items"
CONFIG_KEY = "config"
CACHE_DIRECTORY_KEY = "cache_dir"
EXTERNAL_FILES_KEY = "external_files"
ITEM_FEATURES_KEY = "item_features"
SPLIT = "all"


class Executor(BaseBeamExecutor):
    """Encodes items."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the split `all`, and `modalities.json` beside it.

        Raises:
            ConfigError: the configuration is not valid, or an encoder cannot be loaded.
            DataError: an item's content is not what was expected.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        item_features = artifact_utils.get_single_instance(output_dict[ITEM_FEATURES_KEY])
        item_features.split_names = artifact_utils.encode_split_names([SPLIT])
        examples_utils.set_payload_format(item_features, example_gen_pb2.FORMAT_TF_EXAMPLE)
        encoded = encode_items(
            items=file_patterns(input_dict[ITEMS_KEY]),
            output_directory=artifact_utils.get_split_uri([item_features], SPLIT),
            cache_directory=exec_properties[CACHE_DIRECTORY_KEY],
            # Beside the split: the one place that surely all workers can write to.
            work_directory=os.path.join(item_features.uri, "_work"),
            config=parse_config(ContentConfig, exec_properties[CONFIG_KEY]),
            make_pipeline=self._make_beam_pipeline,
            table_rows=_table_rows(input_dict[ITEMS_KEY]),
        )
        write_modalities(item_features.uri, encoded.modalities)
        item_features.set_string_custom_property(
            COUNTS_PROPERTY, log_counts("ContentEncoder", encoded.counts)
        )


def _table_rows(items: list[types.Artifact]) -> int | None:
    """Returns how many rows the item table has, if the component that read it says so."""
    counts = [artifact.get_string_custom_property(COUNTS_PROPERTY) for artifact in items]
    return sum(json.loads(text)["read"] for text in counts) if all(counts) else None
