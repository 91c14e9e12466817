"""What happens to one user: cleaning, splitting, cutting into windows. Pure functions."""

import bisect
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bivrec_tf import features
from components.sequence_builder.sequence_config import SequenceConfig

Event = tuple[int, int, bytes]
"""(timestamp, row, item id). A plain tuple, because those sort as wanted and encode fast."""

Cuts = tuple[int, int]
"""The timestamps at which validation and test begin."""


class Draft(NamedTuple):
    """One example before it is written: its split, what is known, and what is predicted."""

    split: str
    history: Sequence[Event]
    target: Sequence[Event]


class CleanEvents(NamedTuple):
    """A user's events without repetition, and how many were dropped."""

    events: list[Event]
    duplicates: int
    repeated: int


def clean_events(events: Iterable[Event]) -> CleanEvents:
    """Orders events by (timestamp, row) and keeps the first one of every item.

    A target can then never stand in its own history. Rows that repeat item and timestamp are
    counted as duplicates, later interactions with a known item as repeated.
    """
    kept: list[Event] = []
    seen_items: set[bytes] = set()
    seen_rows: set[tuple[int, bytes]] = set()
    duplicates = repeated = 0
    for event in sorted(events):
        timestamp, _, item = event
        if (timestamp, item) in seen_rows:
            duplicates += 1
        elif item in seen_items:
            repeated += 1
        else:
            kept.append(event)
        seen_rows.add((timestamp, item))
        seen_items.add(item)
    return CleanEvents(kept, duplicates, repeated)


def hashed_place(key: bytes) -> float:
    """Returns the place in [0, 1) that a key always has, uniform over keys."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64


def hashed_split(user_id: bytes, config: SequenceConfig) -> str:
    """Returns the split of a user under the `user` protocol: a fixed function of id and seed."""
    place = hashed_place(f"{config.seed}:".encode() + user_id)
    train, validation, _ = config.user_fractions
    if place < train:
        return features.TRAIN_SPLIT
    return features.VALIDATION_SPLIT if place < train + validation else features.TEST_SPLIT


def training_events(
    events: Sequence[Event], user_split: str, cuts: Cuts | None, config: SequenceConfig
) -> Sequence[Event]:
    """Returns the part of a user's ordered events that the model is trained on.

    Args:
        events: clean events in order.
        user_split: the user's split; only used under the `user` protocol.
        cuts: only used under the `temporal` protocol.
        config: the configuration.
    """
    if config.protocol == "temporal":
        assert cuts is not None
        return events[: _first_at(events, cuts[0])]
    if config.protocol == "leave_one_out":
        # With fewer than three there is nothing to train on once two are held out.
        return events[:-2] if len(events) >= 3 else events
    return events if user_split == features.TRAIN_SPLIT else []


def held_out_drafts(
    events: Sequence[Event], user_split: str, cuts: Cuts | None, config: SequenceConfig
) -> Iterator[Draft]:
    """Yields the validation and test examples of a user, histories still of full length.

    The arguments are those of `training_events`.
    """
    if config.protocol == "temporal":
        assert cuts is not None
        validation, test = (_first_at(events, cut) for cut in cuts)
        for split, begin, end in (
            (features.VALIDATION_SPLIT, validation, test),
            (features.TEST_SPLIT, test, len(events)),
        ):
            if config.temporal_targets == "last":
                begin = max(begin, end - 1)
            for place in range(begin, end):
                yield Draft(split, events[:place], events[place : place + 1])
    elif config.protocol == "leave_one_out":
        if len(events) >= 3:
            yield Draft(features.VALIDATION_SPLIT, events[:-2], events[-2:-1])
            yield Draft(features.TEST_SPLIT, events[:-1], events[-1:])
    elif user_split != features.TRAIN_SPLIT:
        # The small number keeps 10 * (1 - 0.3) from falling below 7.
        known = math.floor(len(events) * (1 - config.holdout_fraction) + 1e-9)
        yield Draft(user_split, events[:known], events[known:])


def training_drafts(events: Sequence[Event], config: SequenceConfig) -> Iterator[Draft]:
    """Yields the training windows of a user: every event is a target exactly once, in order.

    A window's history is the `window_overlap` events before its first target (none in the first
    window); history and targets together are at most `max_history + 1`.
    """
    begin = 0
    while begin < len(events):
        history = events[max(0, begin - config.window_overlap) : begin]
        end = begin + config.max_history + 1 - len(history)
        yield Draft(features.TRAIN_SPLIT, history, events[begin:end])
        begin = end


def history_length_bucket(length: int) -> str:
    """Returns the bucket of `features.HISTORY_LENGTH_BUCKETS` for a number of items."""
    last_of_bucket = (0, 5, 20, 50)
    return features.HISTORY_LENGTH_BUCKETS[bisect.bisect_left(last_of_bucket, length)]


def _first_at(events: Sequence[Event], cut: int) -> int:
    """Returns the place of the first event at or after a time."""
    return bisect.bisect_left(events, cut, key=lambda event: event[0])
