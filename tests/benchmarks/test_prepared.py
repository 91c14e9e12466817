"""Benchmarks split as the pipeline does: against its own components, run on the same tables."""

from collections import Counter

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.prepared import prepare
from bivrec_tf import data, features
from bivrec_tf.errors import ConfigError
from components.sequence_builder.build_sequences import build_sequences
from components.sequence_builder.sequence_config import SequenceConfig
from components.table_example_gen.read_table import ReadTable
from components.table_example_gen.table_config import TableConfig

CASES = [
    ("walks", SequenceConfig(protocol="leave_one_out", max_history=6, window_overlap=1)),
    ("walks", SequenceConfig(protocol="temporal", max_history=6, window_overlap=3)),
    ("bare", SequenceConfig(protocol="temporal", max_history=9, validation_quantile=0.55,
                            test_quantile=0.77, window_overlap=1)),
    ("walks", SequenceConfig(protocol="user", max_history=6, window_overlap=6)),
    ("bare", SequenceConfig(protocol="user", max_history=6, window_overlap=1, seed=3)),
    ("bare", SequenceConfig(protocol="leave_one_out", max_history=4, window_overlap=2,
                            max_seen=5)),
]  # fmt: skip


def split_by_the_pipeline(folder, config, work):
    """Returns split -> Counter of (history, targets), as ids."""
    columns = {"split": "split"} if folder.name == "walks" else {}
    table = TableConfig(kind="interactions", columns=columns)
    with beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | ReadTable(str(folder / "interactions.parquet"), table)
            | beam.io.WriteToTFRecord(str(work / "table"), file_name_suffix=".gz")
        )
    outputs = {split: str(work / split) for split in features.SPLITS}
    build_sequences(
        [str(work / "table*")], None, outputs, str(work / "between"), config, beam.Pipeline
    )
    found = {}
    for split in features.SPLITS:
        files = [str(path) for path in (work / split).glob("sequences-*.gz")]
        examples = [
            tf.train.Example.FromString(record).features.feature
            for record in data.read_examples(files).as_numpy_iterator()
        ]
        found[split] = Counter(
            tuple(
                tuple(value.decode() for value in example[name].bytes_list.value)
                for name in (features.HISTORY, features.TARGET)
            )
            for example in examples
        )
    return found


def as_ids(prepared, examples):
    ids = prepared.catalogue.item_ids
    return Counter(
        tuple(tuple(ids[row] for row in part) for part in (history, target))
        for _, history, target in examples
    )


@pytest.mark.parametrize(("name", "config"), CASES)
def test_the_splits_are_those_of_the_pipeline(data_root, tmp_path, name, config):
    expected = split_by_the_pipeline(data_root / name, config, tmp_path)
    # Without content, an item that training never saw has no row, in either part.
    trained = {item for _, target in expected["train"] for item in target}
    counts = Counter(item for _, target in expected["train"].elements() for item in target)

    def known(example):
        history, target = example
        named = [item if item in trained else "" for item in history]
        return tuple(named), tuple(item if item in trained else None for item in target)

    prepared = prepare(data_root / name, config, tmp_path / "cache", content=False)
    catalogue = prepared.catalogue
    assert set(catalogue.item_ids[1:]) == trained
    assert list(catalogue.counts[1:]) == [counts[item] for item in catalogue.item_ids[1:]]
    assert list(catalogue.counts[1:]) == sorted(counts.values(), reverse=True)
    # A window of one item trains nothing; the benchmarks leave it out.
    windows = Counter({w: n for w, n in expected["train"].items() if len(w[0]) + len(w[1]) > 1})
    assert as_ids(prepared, prepared.windows) == windows
    for split in features.SPLITS[1:]:
        found = Counter()
        for _, history, target in prepared.held_out[split]:
            assert ((history >= 0) & (history <= catalogue.num_trained)).all()
            names = [catalogue.item_ids[row] if row > 0 else None for row in target]
            found[tuple(catalogue.item_ids[row] for row in history), tuple(names)] += 1
        wanted = Counter()
        for example, number in expected[split].items():
            wanted[known(example)] += number
        assert found == wanted
        assert sum(found.values()) >= 5


def test_windows_of_one_user_share_the_user(data_root, tmp_path):
    config = SequenceConfig(protocol="leave_one_out", max_history=4, window_overlap=1)
    prepared = prepare(data_root / "bare", config, tmp_path, content=False)
    # Under leave-one-out a validation history is the user's training sequence, whole.
    whole = {user: history for user, history, _ in prepared.held_out["validation"]}
    pieces = {}
    for user, history, target in prepared.windows:
        before = pieces.setdefault(user, [])
        assert before[len(before) - len(history) :] == list(history)
        before.extend(target)
    for user, sequence in pieces.items():
        # Its last window may hold a single item beyond the ones here.
        assert sequence == whole[user][: len(sequence)].tolist()


def test_a_second_run_takes_what_the_first_one_left(data_root, tmp_path):
    config = SequenceConfig(protocol="leave_one_out", max_history=6, window_overlap=1)
    first = prepare(data_root / "walks", config, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = prepare(data_root / "walks", config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    assert second.fingerprint == first.fingerprint
    assert second.catalogue.item_ids == first.catalogue.item_ids
    for one, other in zip(first.windows, second.windows, strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(np.concatenate(one[1:]), np.concatenate(other[1:]))
    # Another protocol is another split of the same encoded items.
    other = prepare(data_root / "walks", config.model_copy(update={"protocol": "user"}), tmp_path)
    assert other.fingerprint != first.fingerprint
    assert len(list(tmp_path.glob("walks-minilm-*.npz"))) == 1
    np.testing.assert_array_equal(
        other.catalogue.content["text"][other.catalogue.item_ids.index("i03")],
        first.catalogue.content["text"][first.catalogue.item_ids.index("i03")],
    )


def test_changed_interactions_are_split_again(data_root, tmp_path):
    import pandas as pd

    folder = tmp_path / "bare"
    folder.mkdir()
    table = pd.read_parquet(data_root / "bare" / "interactions.parquet")
    table.to_parquet(folder / "interactions.parquet")
    config = SequenceConfig(protocol="leave_one_out", max_history=6, window_overlap=1)
    first = prepare(folder, config, tmp_path / "cache", content=False)
    table[table["user_id"] != "u01"].to_parquet(folder / "interactions.parquet")
    second = prepare(folder, config, tmp_path / "cache", content=False)
    assert len(second.held_out["test"]) < len(first.held_out["test"])


def test_batches_are_those_of_evaluation(data_root, tmp_path):
    config = SequenceConfig(protocol="user", max_history=6, window_overlap=1)
    prepared = prepare(data_root / "bare", config, tmp_path, content=False)
    examples = prepared.held_out["test"]
    rows = [
        (history[history > 0].tolist(), target[target != 0].tolist())
        for batch in prepared.batches("test", size=4).as_numpy_iterator()
        for history, target in zip(batch["history"], batch["target"], strict=True)
    ]
    assert rows == [(h[h > 0].tolist(), t.tolist()) for _, h, t in examples]
    sample = list(prepared.batches("test", size=4, most=3).as_numpy_iterator())
    assert sum(len(batch["target"]) for batch in sample) == 3


def test_a_data_set_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ConfigError, match="interactions.parquet does not exist"):
        prepare(tmp_path / "nowhere", SequenceConfig(), tmp_path, content=False)


def test_a_share_of_the_users_is_shown_to_training_and_all_are_tested(data_root, tmp_path):
    config = SequenceConfig(protocol="leave_one_out", max_history=6, window_overlap=1)
    found = {
        share: prepare(data_root / "walks", config, tmp_path, training_share=share)
        for share in (0.2, 0.6, 1.0)
    }
    users = {s: {user for user, _, _ in prepared.windows} for s, prepared in found.items()}
    assert users[0.2] < users[0.6] < users[1.0]
    assert len(users[0.6]) == pytest.approx(0.6 * len(users[1.0]), abs=10)
    assert len({prepared.fingerprint for prepared in found.values()}) == 3
    ids = {}
    for share, prepared in found.items():
        names = np.array(["", *prepared.catalogue.item_ids[1:], "?"])
        ids[share] = [
            (user, names[target].tolist()) for user, _, target in prepared.held_out["test"]
        ]
        of_training = [row for _, _, target in prepared.windows for row in target]
        counts = np.bincount(of_training, minlength=prepared.catalogue.num_trained + 1)
        # A window's first item is nobody's target, and counts none the less.
        assert (prepared.catalogue.counts[1 : len(counts)] >= counts[1:]).all()
    assert ids[0.2] == ids[0.6] == ids[1.0]
