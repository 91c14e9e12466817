"""The whole SequenceBuilder core in Beam, against an independent implementation in pandas."""

import importlib.util
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components.sequence_builder.build_sequences import build_sequences, check_splits
from components.sequence_builder.sequence_config import SequenceConfig

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "data" / "ml-latest-small"
SMALL = {"max_history": 6, "window_overlap": 3, "max_seen": 8}


def _load_naive():
    spec = importlib.util.spec_from_file_location("naive_sequences", HERE / "naive_sequences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.naive_sequences


naive_sequences = _load_naive()


def random_log(seed, size=260):
    """Returns a small log with ties, duplicates, repeats, rare items and small users."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in random.zipf(1.3, size) % 23],
            "item_id": [f"i{number}" for number in random.zipf(1.2, size) % 37],
            "timestamp": 1_500_000_000 + random.integers(0, 60, size) * 40_000,
        }
    )
    frame = pd.concat([frame, frame.sample(20, random_state=seed)], ignore_index=True)
    frame["row"] = range(len(frame))
    shares = {
        name: ["train", "validation", "test"][number % 3]
        for number, name in enumerate(sorted(set(frame["user_id"])))
    }
    frame["split"] = frame["user_id"].map(shares)
    return frame


def write_table(frame, path):
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for row in frame.to_dict("records"):
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if isinstance(value, str):
                    feature.bytes_list.value.append(value.encode())
                else:
                    feature.int64_list.value.append(value)
            writer.write(example.SerializeToString())
    return str(path)


def read_examples(directory):
    """Returns the examples of a split as a Counter of tuples, as `naive_sequences` makes them."""
    examples = Counter()
    for file in Path(directory).glob("sequences-*.gz"):
        for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            assert len(feature) == 8

            def texts(name, feature=feature):
                return tuple(value.decode() for value in feature[name].bytes_list.value)

            examples[
                (
                    *texts(features.USER_ID),
                    texts(features.HISTORY),
                    tuple(feature[features.HISTORY_TIMESTAMPS].int64_list.value),
                    texts(features.TARGET),
                    *texts(features.HISTORY_LENGTH_BUCKET),
                    *texts(features.TARGET_POPULARITY),
                    *feature[features.IS_COLD].int64_list.value,
                    *feature[features.EXAMPLE_WEIGHT].float_list.value,
                )
            ] += 1
    return examples


@pytest.fixture
def build(tmp_path):
    """Returns a function that builds sequences of a frame and reads them back."""

    def run(frame, config, items=None, arguments=()):
        number = len(list(tmp_path.iterdir()))
        root = tmp_path / str(number)
        root.mkdir()
        interactions = write_table(frame, root / "interactions.gz")
        outputs = {split: str(root / f"Split-{split}") for split in features.SPLITS}
        counts = build_sequences(
            interactions=[interactions],
            items=None if items is None else [write_table(items, root / "items.gz")],
            outputs=outputs,
            work_directory=str(root / "_work"),
            config=config,
            make_pipeline=lambda: beam.Pipeline(argv=list(arguments)),
        )
        assert not (root / "_work").exists()
        return {split: read_examples(outputs[split]) for split in features.SPLITS}, counts

    return run


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (0, {"protocol": "temporal", "min_user_interactions": 3, "min_item_interactions": 3}),
        (1, {"protocol": "temporal", "temporal_targets": "last", "min_item_interactions": 3}),
        (2, {"protocol": "leave_one_out", "min_user_interactions": 1}),
        (3, {"protocol": "user", "min_item_interactions": 2}),
        (4, {"protocol": "temporal", "min_user_interactions": 1, "min_item_interactions": 1}),
    ],
)
def test_beam_and_pandas_agree(build, seed, settings):
    config = SequenceConfig(**SMALL, **settings)
    frame = random_log(seed)
    expected, core = naive_sequences(frame, config)
    assert len(core) > 50
    actual, counts = build(
        frame.drop(columns=[] if config.protocol == "user" else ["split"]), config
    )
    assert actual == expected
    assert counts["read"] == len(frame)
    assert counts["interactions"] == len(core)
    assert counts["users"] == core["user_id"].nunique()
    assert counts["items"] == core["item_id"].nunique()
    dropped = sum(count for name, count in counts.items() if name.startswith("dropped_"))
    assert counts["read"] == counts["interactions"] + dropped
    for split in features.SPLITS:
        assert counts[f"examples_{split}"] == expected[split].total()
        assert counts[f"users_{split}"] == len({example[0] for example in expected[split]})
        assert counts[f"targets_{split}"] == sum(
            len(example[3]) * times for example, times in expected[split].items()
        )


def test_a_chain_of_users_and_items_takes_more_rounds_than_one_run_has(build):
    # Every round frees one more link: item n needs user n, who needs item n + 1.
    links = [(f"u{n}", f"i{n + step}") for n in range(3) for step in (0, 1)]
    core = [(f"v{n}", f"j{m}") for n in range(3) for m in range(3)]
    frame = pd.DataFrame(links + core, columns=["user_id", "item_id"])
    frame["timestamp"] = frame["row"] = range(len(frame))
    settings = {"min_user_interactions": 2, "min_item_interactions": 2}
    _, counts = build(frame, SequenceConfig(protocol="leave_one_out", **settings))
    assert counts["interactions"] == len(core)
    assert counts["dropped_k_core_user"] + counts["dropped_k_core_item"] == len(links)


def test_items_without_a_row_are_kept_and_counted(build):
    frame = random_log(5).drop(columns="split")
    config = SequenceConfig(**SMALL, min_user_interactions=2, min_item_interactions=2)
    _, core = naive_sequences(frame, config)
    items = sorted(set(core["item_id"]))
    table = pd.DataFrame({"item_id": [*items[2:], "never seen"]})
    _, counts = build(frame, config, items=table)
    assert counts["items"] == len(items)
    assert counts["items_without_row"] == 2
    assert counts["interactions_without_item_row"] == core["item_id"].isin(items[:2]).sum()


def test_order_of_arrival_does_not_matter(build):
    frame = random_log(6).drop(columns="split")
    config = SequenceConfig(**SMALL, protocol="user", min_user_interactions=2)
    first, counts = build(frame, config)
    second, other_counts = build(frame.sample(frac=1, random_state=0), config)
    assert first == second
    assert counts == other_counts


@pytest.mark.slow
def test_two_processes_give_what_one_gives(build):
    frame = random_log(7).drop(columns="split")
    config = SequenceConfig(**SMALL, min_user_interactions=3, min_item_interactions=1)
    arguments = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert build(frame, config, arguments=arguments) == build(frame, config)


def test_a_user_in_two_splits_is_refused(build):
    frame = random_log(8)
    frame.loc[frame.index[-1], "split"] = "test"
    frame.loc[frame.index[-1], "user_id"] = frame[frame["split"] == "train"]["user_id"].iloc[0]
    with pytest.raises(DataError, match=r"user 'u\d+' is in several splits .*row"):
        build(frame, SequenceConfig(protocol="user"))


def test_nothing_left_is_refused(build):
    frame = random_log(9).drop(columns="split")
    with pytest.raises(DataError, match="Nothing is left of 280 interactions"):
        build(frame, SequenceConfig(min_user_interactions=500))


def test_empty_splits_are_refused():
    counts = {"examples_train": 3, "examples_validation": 0, "users": 3, "interactions": 9}
    with pytest.raises(DataError, match="Splits validation, test of the protocol 'temporal'"):
        check_splits(counts, SequenceConfig())


@pytest.mark.slow
def test_the_sample_has_the_known_numbers_and_equals_pandas(build):
    frame = pd.read_parquet(SAMPLE / "interactions.parquet").drop(columns="rating")
    frame["row"] = range(len(frame))
    config = SequenceConfig()
    actual, counts = build(frame, config)
    assert counts["users"] == 610
    assert counts["items"] == 3650
    assert counts["interactions"] == 90274
    assert counts["users_train"] == 513
    assert counts["users_test"] == 81
    assert counts["cold_targets_test"] == 731
    expected, _ = naive_sequences(frame, config)
    assert actual["train"] == expected["train"]
    # Long histories make comparison by value costly to show: compare before reporting.
    assert all(actual[split] == expected[split] for split in features.SPLITS)
