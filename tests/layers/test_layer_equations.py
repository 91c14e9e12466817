"""Every layer against its equation in loops, with weights far from their first values."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.layers import (
    ClusterAttention,
    ContextBlock,
    GaussianAttention,
    InterestDecomposition,
    MultiScalePatching,
)

DIMENSION = 8
FORMS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "patch"])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def histories(rng, batch, length, width=1, dimension=DIMENSION):
    """Random tokens with left padding of any length, whose values are rubbish."""
    padding = rng.integers(0, length + 1, size=batch)
    mask = np.repeat(np.arange(length)[None] >= padding[:, None], width, axis=1)
    tokens = rng.normal(size=[batch, length * width, dimension]).astype(np.float32)
    tokens[~mask] *= 50
    return tokens, mask


shapes = {
    "batch": st.integers(1, 3),
    "length": st.integers(1, 7),
    "seed": st.integers(0, 10_000),
}


@FORMS
@settings(deadline=None, max_examples=15)
@given(**shapes, scales=st.sampled_from([(1,), (3,), (1, 2, 4), (4, 1)]))
def test_multi_scale_patching(naive, randomise, causal, batch, length, seed, scales):
    items, mask = histories(np.random.default_rng(seed), batch, length)
    layer = MultiScalePatching(scales, max_length=7, causal=causal)
    layer(items, tf.constant(mask))
    randomise(layer, seed)
    tokens, token_mask = layer(items, tf.constant(mask))
    expected, expected_mask = naive.multi_scale_patching(layer, items, mask)
    close(tokens, expected)
    np.testing.assert_array_equal(token_mask, expected_mask)


@FORMS
@settings(deadline=None, max_examples=10)
@given(**shapes, heads=st.sampled_from([1, 2, 4]), width=st.integers(1, 2))
def test_context_block(naive, randomise, causal, batch, length, seed, heads, width):
    tokens, mask = histories(np.random.default_rng(seed), batch, length, width)
    # Shorter than some histories: longer distances share the last bias.
    layer = ContextBlock(heads, 4 if causal else None, width)
    layer(tokens, tf.constant(mask))
    randomise(layer, seed)
    close(layer(tokens, tf.constant(mask)), naive.context_block(layer, tokens, mask))


@FORMS
@settings(deadline=None, max_examples=10)
@given(**shapes, interests=st.integers(1, 4), width=st.integers(1, 3))
def test_gaussian_attention(naive, randomise, causal, batch, length, seed, interests, width):
    tokens, mask = histories(np.random.default_rng(seed), batch, length, width)
    layer = GaussianAttention(interests, causal, width)
    layer(tokens, tf.constant(mask))
    randomise(layer, seed)
    expected = naive.gaussian_attention(layer, tokens, mask)
    close(layer(tokens, tf.constant(mask)), expected)


@FORMS
@settings(deadline=None, max_examples=10)
@given(
    **shapes,
    interests=st.integers(2, 4),
    width=st.integers(1, 3),
    top_n=st.integers(1, 2),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_cluster_attention(
    naive, randomise, causal, batch, length, seed, interests, width, top_n, temperature
):
    rng = np.random.default_rng(seed)
    tokens, mask = histories(rng, batch, length, width)
    steps = [length] if causal else []
    given_interests = rng.normal(size=[batch, *steps, interests, DIMENSION]).astype(np.float32)
    layer = ClusterAttention(top_n, temperature, causal, width)
    layer(given_interests, tokens, tf.constant(mask))
    randomise(layer, seed)
    found, allocation = layer(given_interests, tokens, tf.constant(mask))
    expected, expected_allocation = naive.cluster_attention(layer, given_interests, tokens, mask)
    close(found, np.reshape(expected, found.shape))
    close(allocation, expected_allocation)

    valid = np.where(mask, 1.0, 0.0)
    np.testing.assert_allclose(tf.reduce_sum(allocation, axis=1), valid, atol=1e-6)
    assert not np.any(allocation.numpy()[~np.repeat(mask[:, None], interests, axis=1)])


@FORMS
@settings(deadline=None, max_examples=6)
@given(**shapes, blocks=st.integers(0, 2), width=st.integers(1, 2))
def test_interest_decomposition(naive, randomise, causal, batch, length, seed, blocks, width):
    tokens, mask = histories(np.random.default_rng(seed), batch, length, width)
    layer = InterestDecomposition(
        3, blocks, attention_heads=2, causal=causal, max_length=7, tokens_per_position=width
    )
    layer(tokens, tf.constant(mask))
    randomise(layer, seed, spread=0.3)
    found, allocation = layer(tokens, tf.constant(mask))
    expected, expected_allocation = naive.interest_decomposition(layer, tokens, mask)
    # Masked tokens are rubbish and stay so through the blocks; only valid positions mean something.
    known = mask.reshape(batch, length, width)[:, :, 0]
    if causal:
        close(np.reshape(found, expected.shape)[known], expected[known])
    else:
        close(found, expected)
    close(allocation, expected_allocation)


def test_positions_pick_from_the_interests_at_every_position(randomise):
    rng = np.random.default_rng(0)
    tokens, mask = histories(rng, 3, 5, 2)
    layer = InterestDecomposition(4, causal=True, max_length=5, tokens_per_position=2)
    everywhere, _ = layer(tokens, tf.constant(mask))
    randomise(layer)
    everywhere, allocation = layer(tokens, tf.constant(mask))
    positions = tf.constant([14, 0, 7, 7])
    found, same_allocation = layer(tokens, tf.constant(mask), positions)
    close(found, tf.gather(everywhere, positions))
    np.testing.assert_array_equal(allocation, same_allocation)
