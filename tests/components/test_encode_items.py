"""Items in, features out; nothing is encoded twice; a user's own encoder; every error."""

import textwrap

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bivrec_tf.encoders import load_encoder
from bivrec_tf.errors import ConfigError, DataError
from components.content_encoder.content_config import ContentConfig
from components.content_encoder.encode_items import encode_items
from components.content_encoder.split_modalities import join_texts
from components.content_encoder.vector_cache import VectorCache, bucket_of, content_key

LETTERS = "letter_encoder:LetterEncoder"


@pytest.fixture(autouse=True)
def letter_encoder(tmp_path, monkeypatch):
    """A user's own encoder, in the user's own module: counts of the letters a to e."""
    folder = tmp_path / "user_code"
    folder.mkdir()
    (folder / "letter_encoder.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from bivrec_tf.encoders import Encoder

            class LetterEncoder(Encoder):
                name = "letters"
                dimension = 5
                fingerprint = "letters-1"

                def encode(self, batch):
                    assert all(batch), "missing texts must not reach an encoder"
                    counts = [[text.count(letter) for letter in "abcde"] for text in batch]
                    return np.array(counts, np.float32)

            class NarrowEncoder(LetterEncoder):
                name = "narrow"

                def encode(self, batch):
                    return super().encode(batch)[:, :4]
            """
        )
    )
    monkeypatch.syspath_prepend(str(folder))


def text_config(encoder=LETTERS, **kwargs):
    modality = {"name": "text", "kind": "text", "columns": ["title", "genres"], "encoder": encoder}
    return ContentConfig(modalities=[modality | kwargs])


IMAGE = {"name": "image", "kind": "precomputed", "column": "image_embedding"}


def write_items(path, items):
    """Writes dicts of lists; [] is a missing feature, as the table reader writes it."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for item in items:
            example = tf.train.Example()
            for name, values in item.items():
                feature = example.features.feature[name]
                if values and isinstance(values[0], bytes):
                    feature.bytes_list.value[:] = values
                elif values:
                    feature.float_list.value[:] = values
            writer.write(example.SerializeToString())
    return str(path)


@pytest.fixture
def encode(tmp_path):
    """Returns a function that encodes items; returns features by item id, and the counts."""

    def run(items, config):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        counts = encode_items(
            items=[write_items(root / "table.gz", items)],
            output_directory=str(root / "out"),
            cache_directory=str(tmp_path / "user_code" / "cache"),
            work_directory=str(root / "work"),
            config=config,
            make_pipeline=beam.Pipeline,
        ).counts
        assert not (root / "work").exists()
        by_item = {}
        for file in (root / "out").glob("items-*.gz"):
            for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
                feature = tf.train.Example.FromString(record).features.feature
                row = {}
                for name, value in feature.items():
                    row[name] = list(getattr(value, value.WhichOneof("kind")).value)
                (item_id,) = row.pop("item_id")
                assert item_id not in by_item
                by_item[item_id] = row
        return by_item, counts

    return run


def item(item_id, title=(), genres=()):
    return {"item_id": [item_id], "title": list(title), "genres": list(genres)}


def test_texts_are_joined_as_documented():
    assert join_texts([[b"Tangled (2010)"], [b"Animation", b"Comedy"]]) == (
        "Tangled (2010). Animation, Comedy."
    )
    assert join_texts([[b"What's Up, Doc?"], []]) == "What's Up, Doc?"
    assert join_texts([[], ["Amélie ".encode()]]) == "Amélie."
    assert join_texts([[], []]) == ""


def test_every_item_gets_features_and_missing_text_is_not_encoded(encode):
    items = [item(b"1", [b"abba"], [b"cd"]), item(b"2"), item(b"3", [b"eee"])]
    rows, counts = encode(items, text_config())
    assert rows == {
        b"1": {"text": [2, 2, 1, 1, 0], "text_present": [1]},
        b"2": {"text": [0, 0, 0, 0, 0], "text_present": [0]},
        b"3": {"text": [0, 0, 0, 0, 3], "text_present": [1]},
    }
    assert counts == {
        "items": 3,
        "text_present": 2,
        "text_missing": 1,
        "text_encoded": 2,
        "text_cache_hits": 0,
        "text_shared": 0,
        "cache_removed": 0,
    }


def test_nothing_is_encoded_twice_across_runs(encode):
    items = [item(b"%d" % n, [b"title %d" % n]) for n in range(200)] + [item(b"x", [b"title 7"])]
    first_rows, first = encode(items, text_config())
    assert (first["text_encoded"], first["text_cache_hits"], first["text_shared"]) == (200, 0, 1)
    second_rows, second = encode(items, text_config())
    assert (second["text_encoded"], second["text_cache_hits"]) == (0, 201)
    assert second_rows == first_rows
    items[3] = item(b"3", [b"another title"])
    third_rows, third = encode(items, text_config())
    assert (third["text_encoded"], third["text_cache_hits"]) == (1, 200)
    assert [key for key in first_rows if first_rows[key] != third_rows[key]] == [b"3"]


def test_a_torn_shard_is_encoded_again(encode, tmp_path):
    items = [item(b"1", [b"abc"])]
    expected, _ = encode(items, text_config())
    (shard,) = (tmp_path / "user_code" / "cache").rglob("*.npz")
    shard.write_bytes(shard.read_bytes()[:100])
    rows, counts = encode(items, text_config())
    assert rows == expected
    assert counts["text_encoded"] == 1
    assert encode(items, text_config())[1]["text_cache_hits"] == 1


def test_embeddings_pass_through_beside_texts(encode):
    items = [
        {**item(b"1", [b"a"]), "image_embedding": [0.5, -1.0]},
        {**item(b"2", [b"b"]), "image_embedding": []},
    ]
    config = ContentConfig(modalities=[*text_config().model_dump()["modalities"], IMAGE])
    rows, counts = encode(items, config)
    assert rows[b"1"]["image"] == [0.5, -1.0]
    assert rows[b"2"]["image"] == [0.0, 0.0]
    assert [rows[key]["image_present"] for key in (b"1", b"2")] == [[1], [0]]
    assert rows[b"2"]["text_present"] == [1]
    assert (counts["image_present"], counts["image_missing"]) == (1, 1)


def test_minilm_gives_what_it_gives_outside_of_beam(encode):
    rows, _ = encode([item(b"1", [b"Tangled"], [b"Animation", b"Comedy"])], text_config("minilm"))
    expected = load_encoder("minilm").encode(["Tangled. Animation, Comedy."])[0]
    np.testing.assert_allclose(rows[b"1"]["text"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [
        ([[1.0, 2.0], [1.0]], "differ in length .1 numbers for item '1', 2 numbers for item '0'."),
        ([[1.0], [float("nan")]], "item '1', column 'image_embedding': the embedding is not fin"),
    ],
)
def test_bad_embeddings_are_refused(encode, embeddings, expected):
    items = [
        {"item_id": [b"%d" % number], "image_embedding": embedding}
        for number, embedding in enumerate(embeddings)
    ]
    with pytest.raises(DataError, match=expected):
        encode(items, ContentConfig(modalities=[IMAGE]))


def test_a_missing_column_is_refused(encode):
    with pytest.raises(DataError, match="item '1': there is no column 'plot' among 'genres'"):
        encode([item(b"1", [b"a"])], text_config(columns=["title", "plot"]))


def test_encoders_that_break_the_contract_are_refused(encode):
    with pytest.raises(DataError, match=r"NarrowEncoder' gave an array of shape \(1, 4\)"):
        encode([item(b"1", [b"a"])], text_config("letter_encoder:NarrowEncoder"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        encode([item(b"1", [b"a"])], text_config("letter_encoder:Nothing"))


@pytest.mark.parametrize(
    "modalities",
    [
        [],
        [IMAGE, IMAGE],
        [IMAGE | {"name": "item_id"}],
        [IMAGE, {"name": "image_present", "kind": "precomputed", "column": "a"}],
        [IMAGE | {"kind": "audio"}],
        [IMAGE | {"name": "a/b"}],
    ],
)
def test_configurations_without_meaning_are_refused(modalities):
    with pytest.raises(ValidationError):
        ContentConfig(modalities=modalities)


def test_cached_vectors_come_back_from_their_bucket(tmp_path):
    cache = VectorCache(str(tmp_path / "cache"), "letters", "print", 3)
    random = np.random.default_rng(0)
    vectors = {content_key("print", f"text {n}"): random.random(3, np.float32) for n in range(300)}
    for bucket in {bucket_of(key) for key in vectors}:
        own = {key: value for key, value in vectors.items() if bucket_of(key) == bucket}
        cache.write(bucket, own)
        read = cache.read(bucket, own.keys())
        assert read.keys() == own.keys()
        assert all(np.array_equal(read[key], own[key]) for key in own)
    assert content_key("print", "text 1") != content_key("other print", "text 1")
    assert not list(tmp_path.rglob("*.part"))
    # Vectors of another length under the same name are not taken for these.
    assert VectorCache(str(tmp_path / "cache"), "letters", "print", 4).read(bucket, own) == {}
