"""The DAG: the same components for every runner."""

from dataclasses import dataclass

# Not of `tfx.v1`, whose extensions load Google Cloud's AI Platform: a quarter of a start.
from tfx.components import Evaluator, ExampleValidator, SchemaGen, StatisticsGen, Transform
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration.pipeline import Pipeline
from tfx.proto.transform_pb2 import SplitsConfig
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel

from bivrec_tf import features
from components.content_encoder.component import ContentEncoder
from components.content_encoder.external_files import fingerprint
from components.content_validator.component import ContentValidator
from components.idempotent_pusher.component import IdempotentPusher
from components.sequence_builder.component import SequenceBuilder
from components.sequence_trainer.component import SequenceTrainer
from components.serving_validator.component import ServingValidator
from components.table_example_gen.component import table_example_gen
from pipeline import trainer
from pipeline.config import PipelineConfig
from pipeline.evaluation import evaluation_config


@dataclass(frozen=True)
class PipelinePaths:
    """Where a run keeps what; URIs of folders that all components see.

    Attributes:
      root: Artifacts.
      content_cache: Encoded content, kept between runs.
      tensorboard: Training logs, one folder a run.
      checkpoints: Checkpoints of trainings under way, from which a killed one goes on.
      push: Base path of the model server.
    """

    root: str
    content_cache: str
    tensorboard: str
    checkpoints: str
    push: str


def read_items(config: PipelineConfig) -> BaseComponent:
    """Creates the component that reads the item table."""
    return table_example_gen(
        config.items.path,
        "items",
        config.items.columns,
        text_columns=config.text_columns,
        embedding_columns=config.embedding_columns,
        image_columns=config.image_columns,
        id="ItemGen",
    )


def validated(table: BaseComponent, prefix: str) -> list[BaseComponent]:
    """Creates the standard components that describe a table and hold it against its schema."""
    statistics = StatisticsGen(examples=table.outputs["examples"]).with_id(f"{prefix}Statistics")
    schema = SchemaGen(statistics=statistics.outputs["statistics"]).with_id(f"{prefix}Schema")
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    ).with_id(f"{prefix}Validator")
    return [statistics, schema, validator]


def encode_content(
    config: PipelineConfig, paths: PipelinePaths, items: BaseComponent, model: BaseChannel
) -> list[BaseComponent]:
    """Creates the ContentEncoder, and what compares its vectors with those of a model."""
    encoder = ContentEncoder(
        items=items.outputs["examples"],
        config=config.content.model_dump_json(),
        cache_dir=paths.content_cache,
        external_files=fingerprint(config.content, config.items.path),
    )
    return [encoder, ContentValidator(item_features=encoder.outputs["item_features"], model=model)]


def served_and_pushed(
    config: PipelineConfig,
    paths: PipelinePaths,
    model: BaseComponent,
    blessing: BaseChannel,
    requested_at: str,
) -> list[BaseComponent]:
    """Creates what serves a model once to check its answers, and pushes it if it is blessed.

    Args:
      config: The pipeline's configuration.
      paths: Where a run keeps what.
      model: The component whose outputs are `model` and `model_run`.
      blessing: The verdict on the model itself.
      requested_at: See `IdempotentPusher`.
    """
    serving_validator = ServingValidator(
        model=model.outputs["model"],
        model_run=model.outputs["model_run"],
        tolerance=config.serving.score_tolerance,
    )
    pusher = IdempotentPusher(
        model=model.outputs["model"],
        model_blessing=blessing,
        infra_blessing=serving_validator.outputs["blessing"],
        base_directory=paths.push,
        requested_at=requested_at,
    ).with_id("Pusher")
    return [serving_validator, pusher]


def create_components(config: PipelineConfig, paths: PipelinePaths, requested_at: str = "") -> list:
    """Creates all components, wired up.

    Args:
      config: The pipeline's configuration.
      paths: Where a run keeps what.
      requested_at: See `IdempotentPusher`.

    Returns:
      TFX nodes.
    """
    interactions = table_example_gen(
        config.interactions.path, "interactions", config.interactions.columns, id="InteractionGen"
    )
    items = read_items(config)
    nodes = [
        interactions,
        items,
        *validated(interactions, "Interaction"),
        *validated(items, "Item"),
    ]

    sequence_builder = SequenceBuilder(
        interactions=interactions.outputs["examples"],
        items=items.outputs["examples"],
        config=config.sequences.model_dump_json(),
    )
    blessed = Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("LatestBlessedModel")
    item_features = None
    if config.modalities:
        content_nodes = encode_content(config, paths, items, blessed.outputs["model"])
        nodes += content_nodes
        item_features = content_nodes[0].outputs["item_features"]
    held_out = [features.VALIDATION_SPLIT, features.TEST_SPLIT]
    sequence_statistics = StatisticsGen(
        examples=sequence_builder.outputs["sequences"], exclude_splits=held_out
    ).with_id("SequenceStatistics")
    # Shapes are not inferred: histories have any length, also where this data's all agree.
    sequence_schema = SchemaGen(
        statistics=sequence_statistics.outputs["statistics"],
        infer_feature_shape=False,
        exclude_splits=held_out,
    ).with_id("SequenceSchema")
    transform = Transform(
        examples=sequence_builder.outputs["sequences"],
        schema=sequence_schema.outputs["schema"],
        preprocessing_fn="pipeline.preprocessing.preprocessing_fn",
        splits_config=SplitsConfig(
            analyze=[features.TRAIN_SPLIT], transform=[features.TRAIN_SPLIT]
        ),
        disable_statistics=True,
    )
    train = SequenceTrainer(
        transformed_examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        sequences=sequence_builder.outputs["sequences"],
        item_features=item_features,
        run_fn="pipeline.trainer.run_fn",
        custom_config={
            trainer.MODEL: config.model.model_dump(mode="json"),
            trainer.TRAINING: config.training.model_dump(mode="json"),
            trainer.EXPORT: config.export.model_dump(mode="json"),
            trainer.TENSORBOARD: paths.tensorboard,
            trainer.CHECKPOINTS: paths.checkpoints,
            trainer.VALIDATION_REQUESTS: config.serving.validation_requests,
        },
    ).with_id("Trainer")
    evaluator = Evaluator(
        examples=sequence_builder.outputs["sequences"],
        example_splits=[features.TEST_SPLIT],
        model=train.outputs["model"],
        baseline_model=blessed.outputs["model"],
        eval_config=evaluation_config(config.gate),
    )
    return [
        *nodes,
        sequence_builder,
        sequence_statistics,
        sequence_schema,
        transform,
        train,
        blessed,
        evaluator,
        *served_and_pushed(config, paths, train, evaluator.outputs["blessing"], requested_at),
    ]


def create_pipeline(
    config: PipelineConfig,
    paths: PipelinePaths,
    components: list | None = None,
    enable_cache: bool = True,
    **options,
) -> Pipeline:
    """Creates the pipeline.

    Args:
      config: The pipeline's configuration.
      paths: Where a run keeps what.
      components: Its nodes; those of `create_components` without it.
      enable_cache: Whether components whose inputs did not change are skipped.
      **options: Passed to `Pipeline`, such as a metadata store.

    Returns:
      A TFX pipeline for any runner.
    """
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=paths.root,
        components=create_components(config, paths) if components is None else components,
        enable_cache=enable_cache,
        beam_pipeline_args=list(config.beam_pipeline_args),
        **options,
    )
