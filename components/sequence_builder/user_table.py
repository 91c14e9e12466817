"""Users between Beam runs: grouping, k-core to a fixed point, and the files in between."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components import example_features
from components.beam_support import increment
from components.sequence_builder.sequence_config import SequenceConfig
from components.sequence_builder.user_sequences import Event, clean_events, hashed_split

NAMESPACE = "bivrec/sequence_builder"

User = tuple[bytes, str, list[Event]]
"""(user id, split under the `user` protocol, clean events in order)."""


class ReadUsers(beam.PTransform):
    """Serialised interactions -> users, cleaned; dropped rows are counted.

    Raises:
        DataError: under the `user` protocol, a user's rows name two splits.
    """

    def __init__(self, config: SequenceConfig):
        super().__init__()
        self._config = config

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[User]:
        """Builds the steps; see the class."""
        return (
            records
            | "Parse" >> beam.ParDo(_ParseInteraction())
            | "GroupByUser" >> beam.GroupByKey()
            | "Clean" >> beam.ParDo(_CleanUser(self._config))
        )


class _ParseInteraction(beam.DoFn):
    """Serialised example -> (user id, (timestamp, row, item id, split))."""

    def process(self, record: bytes) -> Iterator[tuple[bytes, tuple[int, int, bytes, bytes]]]:
        example = tf.train.Example.FromString(record)
        split = example_features.get_bytes(example, features.SPLIT)
        increment(NAMESPACE, "read")
        yield (
            example_features.get_bytes(example, features.USER_ID)[0],
            (
                example_features.get_integers(example, features.TIMESTAMP)[0],
                example_features.get_integers(example, features.ROW)[0],
                example_features.get_bytes(example, features.ITEM_ID)[0],
                split[0] if split else b"",
            ),
        )


class _CleanUser(beam.DoFn):
    """Rows of a user -> the user."""

    def __init__(self, config: SequenceConfig):
        self._config = config

    def process(
        self, element: tuple[bytes, Iterable[tuple[int, int, bytes, bytes]]]
    ) -> Iterator[User]:
        user_id, grouped = element
        rows = list(grouped)
        cleaned = clean_events(row[:3] for row in rows)
        if cleaned.duplicates:
            increment(NAMESPACE, "dropped_duplicate", cleaned.duplicates)
        if cleaned.repeated:
            increment(NAMESPACE, "dropped_repeated", cleaned.repeated)
        split = ""
        if self._config.protocol == "user":
            split = _own_split(user_id, rows) or hashed_split(user_id, self._config)
        yield user_id, split, cleaned.events


def _own_split(user_id: bytes, rows: list[tuple[int, int, bytes, bytes]]) -> str:
    """Returns the split that the data names for a user, "" if it names none."""
    splits = {row[3]: row[1] for row in sorted(rows, reverse=True)}
    if len(splits) > 1:
        listed = ", ".join(f"{name.decode() or '(none)'} in row {splits[name]}" for name in splits)
        raise DataError(
            f"interactions, column '{features.SPLIT}': user {user_id.decode()!r} is in several "
            f"splits ({listed}). Expected the same split in all rows of a user."
        )
    return next(iter(splits)).decode()


class KCoreRound(beam.PTransform):
    """Users -> (users of which small ones and rare items are dropped, number of rare items).

    If no item was rare, the users are a fixed point: every user and every item has enough
    interactions. A worker holds the ids of the items that stay, besides one user.
    """

    def __init__(self, config: SequenceConfig):
        super().__init__()
        self._config = config

    def expand(self, users: beam.PCollection[User]) -> Any:
        """Builds the steps; see the class."""
        minimum = self._config.min_item_interactions
        large = users | "DropSmallUsers" >> beam.ParDo(
            _DropSmallUsers(self._config.min_user_interactions)
        )
        counts = (
            large
            | "Items" >> beam.FlatMap(lambda user: [(event[2], 1) for event in user[2]])
            | "CountItems" >> beam.CombinePerKey(sum)
        )
        frequent = (
            counts
            | "Frequent" >> beam.Filter(lambda pair: pair[1] >= minimum)
            | "FrequentIds" >> beam.Keys()
            | "FrequentSet" >> beam.combiners.ToSet()
        )
        rare = (
            counts
            | "Rare" >> beam.Filter(lambda pair: pair[1] < minimum)
            | "CountRare" >> beam.combiners.Count.Globally()
        )
        kept = large | "DropRareItems" >> beam.ParDo(
            _DropRareItems(), beam.pvalue.AsSingleton(frequent)
        )
        return kept, rare


class _DropSmallUsers(beam.DoFn):
    def __init__(self, minimum: int):
        self._minimum = minimum

    def process(self, user: User) -> Iterator[User]:
        if len(user[2]) >= self._minimum:
            yield user
        else:
            increment(NAMESPACE, "dropped_k_core_user", len(user[2]))


class _DropRareItems(beam.DoFn):
    def process(self, user: User, frequent: set[bytes]) -> Iterator[User]:
        user_id, split, events = user
        kept = [event for event in events if event[2] in frequent]
        if len(kept) < len(events):
            increment(NAMESPACE, "dropped_k_core_item", len(events) - len(kept))
        if kept:
            yield user_id, split, kept


def encode_user(user: User) -> bytes:
    """Returns a user as bytes, for the files between runs."""
    user_id, split, events = user
    example = tf.train.Example()
    example_features.set_bytes(example, features.USER_ID, [user_id])
    example_features.set_bytes(example, features.SPLIT, [split.encode()])
    example_features.set_integers(example, features.TIMESTAMP, [event[0] for event in events])
    example_features.set_integers(example, features.ROW, [event[1] for event in events])
    example_features.set_bytes(example, features.ITEM_ID, [event[2] for event in events])
    return example_features.serialize(example)


def decode_user(record: bytes) -> User:
    """Returns the user that `encode_user` wrote."""
    example = tf.train.Example.FromString(record)
    events = zip(
        example_features.get_integers(example, features.TIMESTAMP),
        example_features.get_integers(example, features.ROW),
        example_features.get_bytes(example, features.ITEM_ID),
        strict=True,
    )
    return (
        example_features.get_bytes(example, features.USER_ID)[0],
        example_features.get_bytes(example, features.SPLIT)[0].decode(),
        list(events),
    )
