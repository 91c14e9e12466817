"""Invariants of cleaning, splitting and cutting one user, on arbitrary histories."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bivrec_tf import features
from components.sequence_builder.sequence_config import SequenceConfig
from components.sequence_builder.statistics import (
    locate_rank,
    popularity_classes,
    quantile_rank,
    target_popularity,
)
from components.sequence_builder.user_sequences import (
    clean_events,
    hashed_split,
    held_out_drafts,
    history_length_bucket,
    training_drafts,
    training_events,
)

raw_events = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f", b"g"])),
    max_size=30,
).map(lambda pairs: [(time, row, item) for row, (time, item) in enumerate(pairs)])
times = st.lists(st.integers(0, 60), max_size=160).map(sorted)
clean_histories = times.map(
    lambda moments: [(moment, row, b"i%d" % row) for row, moment in enumerate(moments)]
)
cuts = st.tuples(st.integers(-1, 61), st.integers(-1, 61)).map(sorted).map(tuple)
windows = st.integers(1, 12).flatmap(
    lambda history: st.tuples(st.just(history), st.integers(1, history))
)


@given(raw_events, st.randoms())
def test_cleaning_keeps_the_first_of_every_item_whatever_the_order_of_arrival(events, random):
    shuffled = list(events)
    random.shuffle(shuffled)
    cleaned = clean_events(shuffled)
    assert cleaned.events == sorted(cleaned.events)
    assert len(cleaned.events) + cleaned.duplicates + cleaned.repeated == len(events)
    assert len(events) - cleaned.duplicates == len({(time, item) for time, _, item in events})
    first = {}
    for event in sorted(events):
        first.setdefault(event[2], event)
    assert cleaned.events == sorted(first.values())


@given(clean_histories, windows)
def test_windows_hold_every_training_event_once_as_target_and_in_order(events, window):
    max_history, window_overlap = window
    config = SequenceConfig(max_history=max_history, window_overlap=window_overlap)
    drafts = list(training_drafts(events, config))
    assert [event for draft in drafts for event in draft.target] == events
    for number, draft in enumerate(drafts):
        assert draft.split == features.TRAIN_SPLIT
        assert draft.target
        assert len(draft.history) + len(draft.target) <= max_history + 1
        assert len(draft.history) == (window_overlap if number else 0)
        place = events.index(draft.target[0])
        assert list(draft.history) == events[place - len(draft.history) : place]


@given(clean_histories, cuts, st.sampled_from(["all", "last"]))
def test_temporal_targets_lie_between_the_cuts_and_know_all_before_them(events, cut, targets):
    config = SequenceConfig(protocol="temporal", temporal_targets=targets)
    training = training_events(events, "", cut, config)
    assert list(training) == [event for event in events if event[0] < cut[0]]
    drafts = list(held_out_drafts(events, "", cut, config))
    for draft in drafts:
        (target,) = draft.target
        assert list(draft.history) == [event for event in events if event < target]
        if draft.split == features.VALIDATION_SPLIT:
            assert cut[0] <= target[0] < cut[1]
        else:
            assert cut[1] <= target[0]
    if targets == "all":
        assert [draft.target[0] for draft in drafts] == events[len(training) :]
    else:
        assert all(count == 1 for count in Counter(draft.split for draft in drafts).values())
        if events and events[-1][0] >= cut[0]:
            assert drafts[-1].target[0] == events[-1]


@given(clean_histories)
def test_leave_one_out_tests_the_last_and_validates_with_the_one_before(events):
    config = SequenceConfig(protocol="leave_one_out")
    training = list(training_events(events, "", None, config))
    drafts = list(held_out_drafts(events, "", None, config))
    if len(events) < 3:
        assert training == events
        assert drafts == []
        return
    validation, test = drafts
    assert [validation.split, test.split] == [features.VALIDATION_SPLIT, features.TEST_SPLIT]
    assert [*training, *validation.target, *test.target] == events
    assert list(validation.history) == training
    assert list(test.history) == events[:-1]


@given(clean_histories, st.sampled_from(features.SPLITS), st.integers(1, 9))
def test_held_out_users_are_never_trained_on(events, split, tenths):
    config = SequenceConfig(protocol="user", holdout_fraction=tenths / 10)
    training = training_events(events, split, None, config)
    drafts = list(held_out_drafts(events, split, None, config))
    if split == features.TRAIN_SPLIT:
        assert list(training) == events
        assert drafts == []
        return
    (draft,) = drafts
    assert list(training) == []
    assert draft.split == split
    assert [*draft.history, *draft.target] == events
    # The exact share of whole numbers, without floating point.
    assert len(draft.history) == len(events) * (10 - tenths) // 10


def test_users_are_hashed_to_splits_in_the_configured_shares():
    users = [f"user-{number}".encode() for number in range(4000)]
    config = SequenceConfig(protocol="user", user_fractions=(0.7, 0.2, 0.1))
    counts = Counter(hashed_split(user, config) for user in users)
    assert counts["train"] == pytest.approx(2800, abs=150)
    assert counts["validation"] == pytest.approx(800, abs=120)
    other_seed = config.model_copy(update={"seed": 1})
    assert [hashed_split(user, config) for user in users] != [
        hashed_split(user, other_seed) for user in users
    ]


@pytest.mark.parametrize(
    ("length", "bucket"),
    [(0, "0"), (1, "1-5"), (5, "1-5"), (6, "6-20"), (20, "6-20"), (21, "21-50"), (50, "21-50")]
    + [(51, "51+"), (5000, "51+")],
)
def test_history_length_buckets(length, bucket):
    assert history_length_bucket(length) == bucket


@given(st.dictionaries(st.binary(min_size=1, max_size=3), st.integers(1, 50), min_size=1))
def test_head_items_make_up_half_of_the_interactions_and_no_more_than_needed(counts):
    classes = popularity_classes(counts)
    assert set(classes) == set(counts)
    total = sum(counts.values())
    head = sorted(counts[item] for item, kind in classes.items() if kind == "head")
    middle = sorted(counts[item] for item, kind in classes.items() if kind == "middle")
    assert sum(head) >= 0.5 * total
    assert sum(head) - head[0] < 0.5 * total
    assert sum(head) + sum(middle) >= 0.8 * total or not middle
    assert not middle or sum(head) + sum(middle) - middle[0] < 0.8 * total
    order = {"head": 0, "middle": 1, "tail": 2}
    ranked = sorted(counts, key=lambda item: (-counts[item], item))
    assert [order[classes[item]] for item in ranked] == sorted(order[c] for c in classes.values())


def test_popularity_of_several_targets():
    classes = {b"a": "head", b"b": "head", b"c": "tail"}
    assert target_popularity([(0, 0, b"a"), (1, 1, b"b")], classes) == "head"
    assert target_popularity([(0, 0, b"a"), (1, 1, b"c")], classes) == "mixed"
    assert target_popularity([(0, 0, b"z")], classes) == "cold"


@given(st.lists(st.integers(-9, 9), min_size=1), st.floats(0, 0.999))
def test_ranks_are_found_in_counts(values, quantile):
    rank = quantile_rank(quantile, len(values))
    assert locate_rank(Counter(values), rank)[0] == sorted(values)[rank]


@pytest.mark.parametrize(
    "arguments",
    [
        {"window_overlap": 51},
        {"window_overlap": 0},
        {"validation_quantile": 0.9, "test_quantile": 0.8},
        {"user_fractions": (0.8, 0.1, 0.2)},
        {"max_seen": 10},
        {"protocol": "random"},
        {"unknown": 1},
    ],
)
def test_configurations_without_meaning_are_refused(arguments):
    with pytest.raises(ValidationError):
        SequenceConfig(**arguments)
