"""The TFX door: a file-based ExampleGen whose reader is `ReadTable`."""

import os
from typing import Any

import apache_beam as beam
from google.protobuf import struct_pb2
from tfx import types
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.proto import example_gen_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from components.artifacts import COUNTS_PROPERTY
from components.beam_support import log_counts, read_counts, user_errors
from components.configuration import parse_config
from components.table_example_gen.read_table import NAMESPACE, ReadTable
from components.table_example_gen.table_config import TableConfig

CONFIG_FIELD = "table"


def _read_table(
    pbegin: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str
) -> beam.PCollection:
    custom_config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(
        exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], custom_config
    )
    struct = struct_pb2.Struct()
    custom_config.custom_config.Unpack(struct)
    pattern = os.path.join(exec_properties[standard_component_specs.INPUT_BASE_KEY], split_pattern)
    return pbegin | ReadTable(pattern, parse_config(TableConfig, str(struct[CONFIG_FIELD])))


class Executor(BaseExampleGenExecutor):
    """Writes the rows of a table as examples, and the counts as an artifact property."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802
        """Returns the transform from the table's files to serialised examples."""
        return beam.ptransform_fn(_read_table)

    def _make_beam_pipeline(self) -> beam.Pipeline:
        # The base class keeps no reference, and the counts are known to the pipeline's result.
        self._pipeline = super()._make_beam_pipeline()
        return self._pipeline

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Runs the reader.

        Raises:
            DataError: the table is not what was expected.
        """
        with user_errors():
            super().Do(input_dict, output_dict, exec_properties)
        counts = log_counts("TableExampleGen", read_counts(self._pipeline.result, NAMESPACE))
        for artifact in output_dict[standard_component_specs.EXAMPLES_KEY]:
            artifact.set_string_custom_property(COUNTS_PROPERTY, counts)
