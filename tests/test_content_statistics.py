"""Drift of content: statistics against NumPy's, and sentences only where something changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.catalogue import ItemFeatures
from bivrec_tf.content_statistics import content_statistics, describe_drift, from_json, to_json


def items(vectors, every=1, name="text"):
    """Items with a vector, `every` second (third ...) one of them."""
    return [
        ItemFeatures(f"i{n}", {name: vector} if n % every == 0 else {})
        for n, vector in enumerate(vectors)
    ]


def draw(count=400, shift=0.0, spread=1.0, seed=0, dimension=8):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, spread, size=(count, dimension)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 40), every=st.integers(1, 4), seed=st.integers(0, 100))
def test_statistics_are_those_of_numpy(count, every, seed):
    vectors = draw(count, seed=seed)
    found = content_statistics(items(vectors, every))["text"]
    present = vectors[::every].astype(np.float64)
    assert (found.items, found.present) == (count, len(present))
    np.testing.assert_allclose(found.mean, present.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.deviation, present.std(axis=0), atol=1e-4)
    assert from_json(to_json({"text": found})) == {"text": found}


@pytest.mark.parametrize("count", [20, 400])
def test_another_sample_of_the_same_items_is_no_drift(count):
    for seed in range(1, 20):
        before, now = (content_statistics(items(draw(count, seed=s))) for s in (0, seed))
        assert describe_drift(before, now) == []


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (items(draw(shift=1.0)), "text: the mean vector moved by 1.0"),
        (items(draw(spread=2.0)), "text: the vectors spread 2.0"),
        (items(draw(), every=2), "text: 50% of the items have it, 100% had it"),
        (items(draw(), every=1000)[1:], "text: no item has it any more"),
        (items(draw(dimension=5)), "text: vectors of 5 values, 8 when the model was trained"),
        (items(draw(100)), "the item table has 100 items, it had 400"),
    ],
)
def test_what_changed_is_said(now, message):
    before = content_statistics(items(draw()))
    (finding, *_) = describe_drift(before, content_statistics(now, ["text"]))
    assert finding.startswith(message)


def test_modalities_that_come_and_go_are_named():
    text, image = (content_statistics(items(draw(), name=name)) for name in ("text", "image"))
    gone, new = sorted(describe_drift(text, image), reverse=True)
    assert gone.startswith("text: no item has it any more; the model was trained with it for 100%")
    assert new == "image: new, the model was trained without it."
