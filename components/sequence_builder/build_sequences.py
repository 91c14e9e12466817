"""Beam core: interactions in, sequence examples of three splits out."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components import example_features
from components.beam_support import increment, read_counts, user_errors
from components.sequence_builder.sequence_config import SequenceConfig
from components.sequence_builder.user_table import (
    NAMESPACE,
    KCoreRound,
    ReadUsers,
    User,
    decode_user,
    encode_user,
)
from components.sequence_builder.write_examples import MakeExamples

# Starting a run costs about as much as a round: one round drops, the next one often finds nothing.
_ROUNDS_OF_A_RUN = 2

MakePipeline = Callable[[], beam.Pipeline]


def build_sequences(
    interactions: Sequence[str],
    items: Sequence[str] | None,
    outputs: Mapping[str, str],
    work_directory: str,
    config: SequenceConfig,
    make_pipeline: MakePipeline,
) -> dict[str, int]:
    """Writes gzipped TFRecords `sequences-*.gz` of the features in `bivrec_tf.features`.

    The content does not depend on the number of workers nor on the order in which rows arrive.
    Memory of a worker: the longest user, and an entry for every item that survives.

    Args:
        interactions: file patterns of gzipped TFRecords, as `ReadTable` writes them.
        items: likewise for the item table; None if there is none.
        outputs: split name -> directory, for every split of `features.SPLITS`.
        work_directory: for files between runs; must be seen by all workers. Removed at the end.
        config: the configuration.
        make_pipeline: returns a new Beam pipeline; called once for every run.

    Returns:
        The counts: rows read, kept and dropped by reason, users, items and interactions after
        the k-core, users, examples and targets of each split, cold targets, interactions whose
        item has no row in the item table.

    Raises:
        DataError: a user is in two splits (`user` protocol), or nothing survives the k-core.
    """
    try:
        with user_errors():
            users, counts = _reach_fixed_point(interactions, work_directory, config, make_pipeline)
            counts.update(_write_splits(users, items, outputs, config, make_pipeline))
    finally:
        if FileSystems.exists(work_directory):
            FileSystems.delete([work_directory])
    if not counts["interactions"]:
        raise DataError(
            f"Nothing is left of {counts['read']:,} interactions: no user has "
            f"{config.min_user_interactions} items that have {config.min_item_interactions} users "
            "each. Lower min_user_interactions and min_item_interactions, or bring more data."
        )
    if counts["items_without_row"] == counts["items"]:
        logging.getLogger(__name__).warning(
            "No item of the interactions has a row in the item table: are the ids the same?"
        )
    return dict(counts)


def check_splits(counts: Mapping[str, int], config: SequenceConfig) -> None:
    """Checks that there is something to train on, to validate with and to test with.

    Raises:
        DataError: a split has no examples.
    """
    empty = [split for split in features.SPLITS if not counts.get(f"examples_{split}")]
    if empty:
        raise DataError(
            f"Split{'s' if len(empty) > 1 else ''} {', '.join(empty)} of the protocol "
            f"'{config.protocol}' got no examples, of {counts.get('users', 0):,} users and "
            f"{counts.get('interactions', 0):,} interactions. Bring more data, or choose another "
            "protocol, quantiles or fractions."
        )


def _reach_fixed_point(
    interactions: Sequence[str],
    work_directory: str,
    config: SequenceConfig,
    make_pipeline: MakePipeline,
) -> tuple[str, Counter[str]]:
    """Returns the pattern of the files of users after the k-core, and the counts so far."""
    counts: Counter[str] = Counter(
        read=0,
        dropped_duplicate=0,
        dropped_repeated=0,
        dropped_k_core_user=0,
        dropped_k_core_item=0,
    )
    source = ""
    run = 0
    while True:
        directory = FileSystems.join(work_directory, f"run-{run}")
        pipeline = make_pipeline()
        users = (
            _read_users(pipeline, source)
            if source
            else _read_records(pipeline, "Interactions", interactions) | ReadUsers(config)
        )
        for round_number in range(_ROUNDS_OF_A_RUN):
            users, rare = users | f"Round{round_number}" >> KCoreRound(config)
        _ = (
            users
            | "Encode" >> beam.Map(encode_user)
            | "Write"
            >> beam.io.WriteToTFRecord(FileSystems.join(directory, "users"), file_name_suffix=".gz")
        )
        # Whether to go on is decided by data, not by a metric: runners may lose or repeat those.
        rare_file = FileSystems.join(directory, "rare_items")
        _ = rare | "WriteRare" >> beam.io.WriteToText(
            rare_file, num_shards=1, shard_name_template=""
        )
        result = pipeline.run()
        result.wait_until_finish()
        counts.update(read_counts(result, NAMESPACE))
        source = FileSystems.join(directory, "users-*")
        run += 1
        with FileSystems.open(rare_file) as file:
            rare_items = int(file.read())
        logging.getLogger(__name__).info(
            "k-core: %d items too rare after %d rounds", rare_items, run * _ROUNDS_OF_A_RUN
        )
        if rare_items == 0:
            return source, counts


def _write_splits(
    users_pattern: str,
    items: Sequence[str] | None,
    outputs: Mapping[str, str],
    config: SequenceConfig,
    make_pipeline: MakePipeline,
) -> dict[str, int]:
    pipeline = make_pipeline()
    users = _read_users(pipeline, users_pattern)
    examples = users | "Sequences" >> MakeExamples(config)
    for split in features.SPLITS:
        _ = examples[split] | f"Write[{split}]" >> beam.io.WriteToTFRecord(
            FileSystems.join(outputs[split], "sequences"), file_name_suffix=".gz"
        )
    interactions_of_items = (
        users
        | "ItemsOfUsers" >> beam.FlatMap(lambda user: [(event[2], 1) for event in user[2]])
        | "CountItems" >> beam.CombinePerKey(sum)
    )
    if items is None:
        _ = interactions_of_items | "CountOnly" >> beam.Map(lambda _: increment(NAMESPACE, "items"))
    else:
        item_rows = _read_records(pipeline, "Items", items) | "ItemIds" >> beam.Map(_item_id)
        _ = (
            {"interactions": interactions_of_items, "rows": item_rows}
            | "JoinItems" >> beam.CoGroupByKey()
            | "CountItemRows" >> beam.ParDo(_CountItemRows())
        )
    result = pipeline.run()
    result.wait_until_finish()
    counts = {"users": 0, "items": 0, "interactions": 0}
    for split in features.SPLITS:
        counts |= {f"users_{split}": 0, f"examples_{split}": 0, f"targets_{split}": 0}
    if items is not None:
        counts |= {"items_without_row": 0, "interactions_without_item_row": 0}
    return counts | read_counts(result, NAMESPACE)


def _read_records(
    pipeline: beam.Pipeline, name: str, patterns: Sequence[str]
) -> beam.PCollection[bytes]:
    return (
        pipeline
        | f"{name}Patterns" >> beam.Create(list(patterns))
        | f"Read{name}" >> beam.io.ReadAllFromTFRecord()
    )


def _read_users(pipeline: beam.Pipeline, pattern: str) -> beam.PCollection[User]:
    return (
        pipeline
        | "ReadUsers" >> beam.io.ReadFromTFRecord(pattern)
        | "Decode" >> beam.Map(decode_user)
    )


def _item_id(record: bytes) -> tuple[bytes, bool]:
    example = tf.train.Example.FromString(record)
    return example_features.get_bytes(example, features.ITEM_ID)[0], True


class _CountItemRows(beam.DoFn):
    """(item id, its interactions and rows) -> nothing; counts items, and what has no row."""

    def process(self, element: tuple[bytes, dict[str, Iterable[int]]]) -> Iterator[None]:
        _, groups = element
        interactions = sum(groups["interactions"])
        if interactions:
            increment(NAMESPACE, "items")
            if not any(groups["rows"]):
                increment(NAMESPACE, "items_without_row")
                increment(NAMESPACE, "interactions_without_item_row", interactions)
        yield from ()
