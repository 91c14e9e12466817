"""The TFX component that reads one of the user's tables."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from google.protobuf import struct_pb2
from pydantic import ValidationError
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2

from bivrec_tf.errors import ConfigError
from components.configuration import describe_validation_error
from components.table_example_gen.executor import CONFIG_FIELD, Executor
from components.table_example_gen.table_config import TableConfig

SPLIT = "all"


def table_example_gen(
    path: str,
    kind: Literal["interactions", "items"],
    columns: Mapping[str, str],
    text_columns: Sequence[str] = (),
    embedding_columns: Sequence[str] = (),
    image_columns: Sequence[str] = (),
    id: str | None = None,  # noqa: A002 - named as `with_id` names it
) -> FileBasedExampleGen:
    """Returns a FileBasedExampleGen that reads a table; its output has one split, `all`.

    Args:
        path: the file, or a glob pattern of files of one format (`.parquet`, `.csv`,
            `.tsv`, `.tfrecord`, the last three also with `.gz`). Relative to the working directory.
        kind: which of the two tables.
        columns: canonical name -> the user's column name, where they differ; `split` is read
            only when it is named here.
        text_columns: item columns kept as text.
        embedding_columns: item columns kept as vectors.
        image_columns: item columns kept as pictures, or as paths of pictures.
        id: id of the node in the pipeline.

    Raises:
        ConfigError: the columns do not fit the kind of table.
    """
    try:
        config = TableConfig(
            kind=kind,
            columns=dict(columns),
            text_columns=tuple(text_columns),
            embedding_columns=tuple(embedding_columns),
            image_columns=tuple(image_columns),
        )
    except ValidationError as error:
        raise ConfigError(describe_validation_error("TableConfig", error)) from error
    directory, pattern = os.path.split(path if "://" in path else os.path.abspath(path))
    struct = struct_pb2.Struct()
    struct[CONFIG_FIELD] = config.model_dump_json()
    custom_config = example_gen_pb2.CustomConfig()
    custom_config.custom_config.Pack(struct)
    example_gen = FileBasedExampleGen(
        input_base=directory,
        input_config=example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name=SPLIT, pattern=pattern)]
        ),
        # No output splits: without this empty message the default would be train and eval.
        output_config=example_gen_pb2.Output(),
        custom_config=custom_config,
        custom_executor_spec=executor_spec.BeamExecutorSpec(Executor),
    )
    return example_gen.with_id(id) if id else example_gen
