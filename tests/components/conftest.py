"""What the tests of the ContentEncoder share: small encoders of a user's own, items, a run."""

import itertools
import textwrap
from typing import NamedTuple

import apache_beam as beam
import pytest
import tensorflow as tf

from components.content_encoder.encode_items import encode_items

ENCODERS = textwrap.dedent(
    """
    import os
    import signal

    import numpy as np
    from bivrec_tf.encoders import Encoder

    def counts(contents):
        return np.array([[text.count(letter) for letter in "abcde"] for text in contents], "f4")

    class LetterEncoder(Encoder):
        name = "letters"
        dimension = 5
        fingerprint = "letters-1"

        def encode(self, batch):
            assert all(batch), "missing texts must not reach an encoder"
            return counts(batch)

    class NarrowEncoder(LetterEncoder):
        name = "narrow"

        def encode(self, batch):
            return super().encode(batch)[:, :4]

    class PictureEncoder(Encoder):
        # Pictures of this format begin with NUL, which no path does.
        content = "image"
        name = "pictures"
        dimension = 5
        fingerprint = "pictures-1"

        def encode(self, batch):
            vectors = counts([content.decode("latin-1") for content in batch])
            for row, content in enumerate(batch):
                if not content.startswith(b"\\0"):
                    vectors[row] = np.nan
            return vectors

        def explain(self, content):
            return "it does not begin with NUL"

    class RecordingEncoder(LetterEncoder):
        # Notes what it is asked for; with KILL_AT_STEP the process dies instead of answering.
        name = "recording"
        steps = 0

        def encode(self, batch):
            type(self).steps += 1
            if self.steps == int(os.environ.get("KILL_AT_STEP", 0)):
                os.kill(os.getpid(), signal.SIGKILL)
            with open(os.environ["ENCODED"], "a") as file:
                file.writelines(f"{text}\\n" for text in batch)
            return counts(batch)
    """
)


def write_items(path, items):
    """Writes dicts of lists; [] is a missing feature, as the table reader writes it."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for item in items:
            example = tf.train.Example()
            for name, values in item.items():
                feature = example.features.feature[name]
                if values and isinstance(values[0], bytes):
                    feature.bytes_list.value[:] = values
                elif values and isinstance(values[0], int):
                    feature.int64_list.value[:] = values
                elif values:
                    feature.float_list.value[:] = values
            writer.write(example.SerializeToString())
    return str(path)


def read_features(folder):
    """Returns the written features by item id."""
    by_item = {}
    for file in folder.glob("items-*.gz"):
        for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            row = {}
            for name, value in feature.items():
                kind = value.WhichOneof("kind")
                row[name] = list(getattr(value, kind).value) if kind else []
            (item_id,) = row.pop("item_id")
            assert item_id not in by_item
            by_item[item_id] = row
    return by_item


class Encoded(NamedTuple):
    """Features by item id, what was counted, and what is said of the modalities."""

    rows: dict
    counts: dict
    modalities: dict


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """The folder of a user's own module `user_encoders`, on the path."""
    folder = tmp_path / "user_code"
    folder.mkdir()
    (folder / "user_encoders.py").write_text(ENCODERS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def cache(tmp_path):
    """The folder of the cache that all runs of a test share."""
    return tmp_path / "content_cache"


@pytest.fixture
def write_item_rows():
    """The function that writes item rows as the table reader leaves them."""
    return write_items


@pytest.fixture
def encode(tmp_path, cache, user_code):
    """Returns a function that encodes items, each time into another folder."""

    numbers = itertools.count(1)

    def run(items, config, table_rows=None):
        root = tmp_path / f"run-{next(numbers)}"
        root.mkdir()
        encoded = encode_items(
            items=[write_items(root / "table.gz", items)],
            output_directory=str(root / "out"),
            cache_directory=str(cache),
            work_directory=str(root / "work"),
            config=config,
            make_pipeline=beam.Pipeline,
            table_rows=table_rows,
        )
        assert not (root / "work").exists()
        return Encoded(read_features(root / "out"), encoded.counts, encoded.modalities)

    return run
