"""Users -> sequence examples, with every feature of the contract."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import tensorflow as tf

from bivrec_tf import features
from components import example_features
from components.beam_support import increment
from components.sequence_builder.sequence_config import SequenceConfig
from components.sequence_builder.statistics import (
    FindCuts,
    popularity_classes,
    target_popularity,
)
from components.sequence_builder.user_sequences import (
    Cuts,
    Draft,
    held_out_drafts,
    history_length_bucket,
    training_drafts,
    training_events,
)
from components.sequence_builder.user_table import NAMESPACE, User


class MakeExamples(beam.PTransform):
    """Users after the k-core -> split name -> serialised sequence examples.

    A worker holds the popularity class of every training item, besides one user.
    """

    def __init__(self, config: SequenceConfig):
        super().__init__()
        self._config = config

    def expand(self, users: beam.PCollection[User]) -> Any:
        """Builds the steps; see the class."""
        config = self._config
        if config.protocol == "temporal":
            cuts = (
                users
                | "Times" >> beam.FlatMap(lambda user: [event[0] for event in user[2]])
                | "FindCuts" >> FindCuts(config.validation_quantile, config.test_quantile)
            )
        else:
            cuts = users.pipeline | "NoCuts" >> beam.Create([None])
        classes = (
            users
            | "TrainingItems" >> beam.FlatMap(_training_items, config, beam.pvalue.AsIter(cuts))
            | "CountTraining" >> beam.CombinePerKey(sum)
            | "TrainingCounts" >> beam.combiners.ToDict()
            | "Popularity" >> beam.Map(popularity_classes)
        )
        return users | "MakeExamples" >> beam.ParDo(
            _MakeUserExamples(config), beam.pvalue.AsIter(cuts), beam.pvalue.AsSingleton(classes)
        ).with_outputs(*features.SPLITS)


def _training_items(
    user: User, config: SequenceConfig, cuts: Iterable[Cuts | None]
) -> list[tuple[bytes, int]]:
    _, split, events = user
    return [(event[2], 1) for event in training_events(events, split, next(iter(cuts)), config)]


class _MakeUserExamples(beam.DoFn):
    """User -> examples, tagged by split."""

    def __init__(self, config: SequenceConfig):
        self._config = config

    def process(
        self, user: User, cuts: Iterable[Cuts | None], classes: Mapping[bytes, str]
    ) -> Iterator[Any]:
        config = self._config
        user_id, user_split, events = user
        cut = next(iter(cuts))
        increment(NAMESPACE, "users")
        increment(NAMESPACE, "interactions", len(events))
        training = training_events(events, user_split, cut, config)
        splits = set()
        predicted = 0
        for draft in training_drafts(training, config):
            splits.add(draft.split)
            predicted += len(draft.target)
            yield self._finish(user_id, draft, classes)
        for draft in held_out_drafts(events, user_split, cut, config):
            splits.add(draft.split)
            predicted += len(draft.target)
            yield self._finish(user_id, draft, classes)
        for split in splits:
            increment(NAMESPACE, f"users_{split}")
        if predicted < len(events):
            increment(NAMESPACE, "interactions_only_in_histories", len(events) - predicted)

    def _finish(self, user_id: bytes, draft: Draft, classes: Mapping[bytes, str]) -> Any:
        if len(draft.history) > self._config.max_seen:
            increment(NAMESPACE, "histories_capped")
            draft = draft._replace(history=draft.history[-self._config.max_seen :])
        cold = sum(event[2] not in classes for event in draft.target)
        increment(NAMESPACE, f"examples_{draft.split}")
        increment(NAMESPACE, f"targets_{draft.split}", len(draft.target))
        if cold:
            increment(NAMESPACE, f"cold_targets_{draft.split}", cold)
        return beam.pvalue.TaggedOutput(draft.split, make_example(user_id, draft, classes))


def make_example(user_id: bytes, draft: Draft, classes: Mapping[bytes, str]) -> bytes:
    """Returns the serialised `tf.train.Example` of a draft.

    Args:
        user_id: the user.
        draft: history and targets as they shall be written.
        classes: item -> popularity class, for every item of the training split.
    """
    example = tf.train.Example()
    example_features.set_bytes(example, features.USER_ID, [user_id])
    example_features.set_bytes(example, features.HISTORY, _items(draft.history))
    example_features.set_integers(
        example, features.HISTORY_TIMESTAMPS, [event[0] for event in draft.history]
    )
    example_features.set_bytes(example, features.TARGET, _items(draft.target))
    bucket = history_length_bucket(len(draft.history))
    example_features.set_bytes(example, features.HISTORY_LENGTH_BUCKET, [bucket.encode()])
    popularity = target_popularity(draft.target, classes)
    example_features.set_bytes(example, features.TARGET_POPULARITY, [popularity.encode()])
    is_cold = any(item not in classes for item in _items(draft.target))
    example_features.set_integers(example, features.IS_COLD, [int(is_cold)])
    example_features.set_floats(example, features.EXAMPLE_WEIGHT, [1.0])
    return example_features.serialize(example)


def _items(events: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    return [event[2] for event in events]
