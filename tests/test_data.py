"""Batches for training and evaluation against plain Python."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf import data
from bivrec_tf.catalogue import ItemCatalogue

NAMES = [f"item {row}" for row in range(1, 31)]


@pytest.fixture(scope="module")
def catalogue():
    return ItemCatalogue.build(NAMES, range(30, 0, -1))


@pytest.fixture(scope="module")
def lookup(catalogue):
    return data.ItemLookup(catalogue)


def windows(rows, length, stride):
    """Windows of a sequence: each target in one window, behind carried-over history."""
    return [
        (rows[max(0, start - length + stride) : start], rows[start : start + stride])
        for start in range(0, len(rows), stride)
    ]


sequences = st.lists(
    st.lists(st.integers(1, 30), min_size=1, max_size=20, unique=True), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=12)
@given(
    users=sequences,
    max_history=st.integers(4, 7),
    stride=st.integers(1, 4),
    batch_size=st.integers(1, 5),
)
def test_every_training_target_is_a_target_once_and_carried_over_history_is_none(
    lookup, users, max_history, stride, batch_size
):
    cut = [
        (f"user {user}", [NAMES[r - 1] for r in history], [NAMES[r - 1] for r in target])
        for user, rows in enumerate(users)
        for history, target in windows(rows, max_history, stride)
    ]
    batches = list(
        data.training_batches(
            data.windows_from_ids(data.serialize_sequences(cut), lookup), max_history, batch_size
        )
    )
    seen, names, found = [], {}, []
    for batch in batches:
        rows, length = batch["sequence"].shape
        assert batch["sequence"].dtype == tf.int32 and length <= max_history + 1
        assert rows * (length - 1) <= max(batch_size * max_history, length - 1)
        # No column is padding alone, but for two that any window has.
        assert length == max(2, int(tf.reduce_max(tf.math.count_nonzero(batch["sequence"], 1))))
        for row, flags, user in zip(
            *(batch[n].numpy() for n in ("sequence", "is_target", "user")), strict=True
        ):
            assert not np.any(flags & (row == 0))
            assert np.all(np.diff(row > 0) >= 0)
            ids, targets = row[row > 0].tolist(), row[flags].tolist()
            found.append((ids[: len(ids) - len(targets)], targets, int(user)))
    rows_of = [[[NAMES.index(n) + 1 for n in part] for part in window[1:]] for window in cut]
    assert sorted(window[:2] for window in found) == sorted(tuple(window) for window in rows_of)
    for (name, _, _), window in zip(cut, rows_of, strict=True):
        users_found = {user for *ids, user in found if ids == window}
        names.setdefault(name, set(users_found))
        names[name] &= users_found
        seen += [(name, item) for item in window[1]]
    assert all(names.values())
    assert sorted(seen) == sorted((f"user {u}", r) for u, rows in enumerate(users) for r in rows)


def test_a_window_that_is_too_long_loses_its_oldest_items(lookup):
    window = data.serialize_sequences([("u", NAMES[:4], NAMES[4:6])])
    (batch,) = data.training_batches(data.windows_from_ids(window, lookup), 3, 2)
    assert batch["sequence"].numpy().tolist() == [[3, 4, 5, 6]]
    assert batch["is_target"].numpy().tolist() == [[False, False, True, True]]


def test_windows_of_rows_are_those_of_ids(lookup):
    cut = [("a", NAMES[:2], NAMES[2:5]), ("b", [], NAMES[7:9])]
    of_ids = list(data.windows_from_ids(data.serialize_sequences(cut), lookup))

    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    serialized = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "user": ints([int(window["user"])]),
                    "history": ints(window["history"].numpy()),
                    "target": ints(window["target"].numpy()),
                }
            )
        ).SerializeToString()
        for window in of_ids
    ]
    of_rows = data.windows_from_rows(tf.data.Dataset.from_tensor_slices(serialized))
    for one, other in zip(of_ids, of_rows, strict=True):
        for name in ("user", "history", "target"):
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def test_a_shuffle_holds_every_window_in_another_order_every_epoch(lookup):
    cut = [(f"user {n}", [], NAMES[n : n + 2]) for n in range(28)]
    batches = data.training_batches(
        data.windows_from_ids(data.serialize_sequences(cut), lookup), 2, 5, seed=1
    )
    epochs = [[int(row[-1]) for b in batches for row in b["sequence"]] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(2, 30))
    assert epochs[0] != epochs[1]


@settings(deadline=None, max_examples=12)
@given(
    examples=st.lists(
        st.tuples(
            st.lists(st.sampled_from([*NAMES[:5], "unknown"]), max_size=4),
            st.lists(st.sampled_from([*NAMES[:5], "unknown"]), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    ),
    batch_size=st.integers(1, 5),
    limit=st.none() | st.integers(1, 5),
)
def test_evaluation_batches_hold_histories_and_targets_with_unknown_targets_minus_one(
    lookup, examples, batch_size, limit
):
    serialized = data.serialize_sequences([("u", *example) for example in examples])
    batches = data.evaluation_batches(serialized, lookup, batch_size, limit)
    rows = {name: row for row, name in enumerate(NAMES, start=1)}
    expected = [
        ([rows[n] for n in history if n in rows], [rows.get(n, -1) for n in target])
        for history, target in examples
    ]
    # Unknown items of a history are 0, as padding is; those of the targets are not.
    found = [
        ([r for r in history.tolist() if r], [r for r in target.tolist() if r])
        for batch in batches
        for history, target in zip(batch["history"].numpy(), batch["target"].numpy(), strict=True)
    ]
    if limit is None:
        assert found == expected
    else:
        assert len(found) == min(limit, len(examples))
        assert not Counter(map(str, found)) - Counter(map(str, expected))


def test_a_limited_evaluation_takes_a_fixed_sample_from_all_over_the_examples(lookup):
    serialized = data.serialize_sequences([("u", [], NAMES[n : n + 1]) for n in range(30)])
    samples = [
        [target for batch in batches for target in batch["target"].numpy().ravel().tolist()]
        for batches in (data.evaluation_batches(serialized, lookup, 4, 10) for _ in range(2))
    ]
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 10
    assert max(samples[0]) > 15


def test_nothing_that_sleeps_for_a_minute_keeps_an_epochs_end_waiting(lookup):
    examples = data.serialize_sequences([("u", NAMES[:3], NAMES[3:5])])
    # Tuning is a thread that an iterator waits for as it ends: docs/decisions/0022.
    for batches in (
        data.training_batches(data.windows_from_ids(examples, lookup), 5, 2, seed=0),
        data.evaluation_batches(examples, lookup),
    ):
        counted = batches.apply(tf.data.experimental.assert_cardinality(1))
        assert counted.options().autotune.enabled is False
        assert len(list(counted)) == 1


def test_lookup_maps_ids_to_rows_and_everything_else_to_zero(catalogue):
    names = tf.constant([["item 3", ""], ["ITEM 3", "-" * 513]])
    assert data.ItemLookup(catalogue)(names).numpy().tolist() == [[3, 0], [0, 0]]
    late = data.ItemLookup(catalogue, first_row=3)(tf.constant(["item 2", "item 3", "item 30"]))
    assert late.numpy().tolist() == [0, 3, 30]
    nothing = data.ItemLookup(catalogue, first_row=31)(tf.constant(["item 3", ""]))
    assert nothing.numpy().tolist() == [0, 0]


def test_targets_are_counted_and_histories_are_not(lookup):
    cut = [("a", NAMES[:2], NAMES[2:5]), ("b", NAMES[:3], NAMES[4:5])]
    counts = data.count_targets(data.windows_from_ids(data.serialize_sequences(cut), lookup), 30)
    assert counts.shape == (31,)
    assert counts.numpy()[:7].tolist() == [0, 0, 0, 1, 1, 2, 0]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_examples_are_read_in_the_order_of_their_files_names(tmp_path, suffix):
    options = tf.io.TFRecordOptions(compression_type="GZIP" if suffix else "")
    for name in ("b", "a"):
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}{suffix}"), options) as writer:
            writer.write(f"{name}1")
            writer.write(f"{name}2")
    files = [str(tmp_path / f"{name}{suffix}") for name in ("b", "a")]
    assert [r.numpy() for r in data.read_examples(files)] == [b"a1", b"a2", b"b1", b"b2"]
