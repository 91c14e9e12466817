"""Items in, features out; nothing is encoded twice; a user's own encoder; every error."""

import numpy as np
import pytest
from pydantic import ValidationError

from bivrec_tf.encoders import load_encoder
from bivrec_tf.errors import ConfigError, DataError
from components.content_encoder.content_config import ContentConfig
from components.content_encoder.split_modalities import join_texts
from components.content_encoder.vector_cache import VectorCache, bucket_of, content_key

LETTERS = "user_encoders:LetterEncoder"


def text_config(encoder=LETTERS, **kwargs):
    modality = {"name": "text", "kind": "text", "columns": ["title", "genres"], "encoder": encoder}
    return ContentConfig(modalities=[modality | kwargs])


IMAGE = {"name": "image", "kind": "precomputed", "column": "image_embedding"}


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
    rows, counts, _ = encode(items, text_config())
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
    first_rows, first, _ = encode(items, text_config())
    assert (first["text_encoded"], first["text_cache_hits"], first["text_shared"]) == (200, 0, 1)
    second_rows, second, _ = encode(items, text_config())
    assert (second["text_encoded"], second["text_cache_hits"]) == (0, 201)
    assert second_rows == first_rows
    items[3] = item(b"3", [b"another title"])
    third_rows, third, _ = encode(items, text_config())
    assert (third["text_encoded"], third["text_cache_hits"]) == (1, 200)
    assert [key for key in first_rows if first_rows[key] != third_rows[key]] == [b"3"]


def test_a_torn_shard_is_encoded_again(encode, cache):
    items = [item(b"1", [b"abc"])]
    expected = encode(items, text_config()).rows
    (shard,) = cache.rglob("*.npz")
    shard.write_bytes(shard.read_bytes()[:100])
    rows, counts, _ = encode(items, text_config())
    assert rows == expected
    assert counts["text_encoded"] == 1
    assert encode(items, text_config()).counts["text_cache_hits"] == 1


def test_embeddings_pass_through_beside_texts(encode):
    items = [
        {**item(b"1", [b"a"]), "image_embedding": [0.5, -1.0]},
        {**item(b"2", [b"b"]), "image_embedding": []},
    ]
    config = ContentConfig(modalities=[*text_config().model_dump()["modalities"], IMAGE])
    rows, counts, _ = encode(items, config)
    assert rows[b"1"]["image"] == [0.5, -1.0]
    assert rows[b"2"]["image"] == [0.0, 0.0]
    assert [rows[key]["image_present"] for key in (b"1", b"2")] == [[1], [0]]
    assert rows[b"2"]["text_present"] == [1]
    assert (counts["image_present"], counts["image_missing"]) == (1, 1)


def test_minilm_gives_what_it_gives_outside_of_beam(encode):
    rows = encode([item(b"1", [b"Tangled"], [b"Animation", b"Comedy"])], text_config("minilm")).rows
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
        encode([item(b"1", [b"a"])], text_config("user_encoders:NarrowEncoder"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        encode([item(b"1", [b"a"])], text_config("user_encoders:Nothing"))


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
