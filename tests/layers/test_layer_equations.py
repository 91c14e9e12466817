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


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def histories(rng, batch, length, dimension=DIMENSION):
    """Random tokens with left padding of any length, whose values are rubbish."""
    padding = rng.integers(0, length + 1, size=batch)
    mask = np.arange(length)[None] >= padding[:, None]
    tokens = rng.normal(size=[batch, length, dimension]).astype(np.float32)
    tokens[~mask] *= 50
    return tokens, mask


def everywhere(mask):
    """All positions of every history."""
    return tf.constant(np.broadcast_to(np.arange(mask.shape[1]), mask.shape), tf.int32)


shapes = {
    "batch": st.integers(1, 3),
    "length": st.integers(1, 7),
    "seed": st.integers(0, 10_000),
}


@settings(deadline=None, max_examples=15)
@given(**shapes, scales=st.sampled_from([(1,), (3,), (1, 2, 4), (4, 1), (2, 5), (7, 3, 1), (9,)]))
def test_multi_scale_patching(naive, randomise, batch, length, seed, scales):
    items, mask = histories(np.random.default_rng(seed), batch, length)
    layer = MultiScalePatching(scales)
    layer(items, tf.constant(mask))
    randomise(layer, seed)
    tokens = layer(items, tf.constant(mask)).numpy()
    close(tokens[mask], naive.multi_scale_patching(layer, items, mask)[mask])


@settings(deadline=None, max_examples=10)
@given(**shapes, heads=st.sampled_from([1, 2, 4]))
def test_context_block(naive, randomise, batch, length, seed, heads):
    tokens, mask = histories(np.random.default_rng(seed), batch, length)
    # Shorter than some histories: longer distances share the last bias.
    layer = ContextBlock(heads, 4)
    layer(tokens, tf.constant(mask))
    randomise(layer, seed)
    expected = naive.context_block(layer, tokens, mask)
    close(layer(tokens, tf.constant(mask)), expected)
    # Few are answered without keys and values of the tokens.
    for asked in (1, 3, 6):
        wanted = np.random.default_rng(seed).integers(0, length, [batch, asked], np.int32)
        found = layer(tokens, tf.constant(mask), tf.constant(wanted))
        close(found, np.take_along_axis(expected, wanted[:, :, np.newaxis], axis=1))


@pytest.mark.parametrize("gaussian", [True, False])
@settings(deadline=None, max_examples=10)
@given(**shapes, interests=st.integers(1, 4))
def test_gaussian_attention(naive, randomise, gaussian, batch, length, seed, interests):
    tokens, mask = histories(np.random.default_rng(seed), batch, length)
    layer = GaussianAttention(interests, gaussian=gaussian)
    layer(tokens, tf.constant(mask), everywhere(mask))
    randomise(layer, seed)
    pool = layer(tokens, tf.constant(mask), everywhere(mask))
    pooled, density = naive.gaussian_attention(layer, tokens, mask)
    close(pool.pooled, pooled)
    valid = np.broadcast_to(mask[:, np.newaxis], density.shape)
    np.testing.assert_allclose(
        pool.log_density.numpy()[valid], density[valid], rtol=1e-4, atol=1e-4
    )


@settings(deadline=None, max_examples=10)
@given(
    **shapes,
    interests=st.integers(1, 4),
    top_n=st.integers(1, 2),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
)
def test_cluster_attention(naive, randomise, batch, length, seed, interests, top_n, temperature):
    top_n = min(top_n, interests)
    tokens, mask = histories(np.random.default_rng(seed), batch, length)
    positions = everywhere(mask)
    gaussian, layer = GaussianAttention(interests), ClusterAttention(top_n, temperature)
    layer(tokens, tf.constant(mask), positions, gaussian(tokens, tf.constant(mask), positions))
    # A single interest is given every token whatever the key, which the layer then does not have.
    assert layer._key.built == (interests > 1)
    if interests == 1:
        layer._key.build(tokens.shape)
    randomise(gaussian, seed, spread=0.2)
    randomise(layer, seed)
    pool = gaussian(tokens, tf.constant(mask), positions)
    found, allocation = layer(tokens, tf.constant(mask), positions, pool)
    pooled, _ = naive.gaussian_attention(gaussian, tokens, mask)
    mean = gaussian._mean.numpy().astype(float)
    expected, expected_allocation = naive.cluster_attention(layer, tokens, mask, pooled, mean)
    close(found, expected)
    close(allocation, expected_allocation)

    valid = np.where(mask, 1.0, 0.0)
    np.testing.assert_allclose(tf.reduce_sum(allocation, axis=1), valid, atol=1e-6)
    assert not np.any(allocation.numpy()[~np.repeat(mask[:, None], interests, axis=1)])


@pytest.mark.parametrize("cluster", [True, False])
@settings(deadline=None, max_examples=6)
@given(**shapes, blocks=st.integers(0, 2))
def test_interest_decomposition(naive, randomise, cluster, batch, length, seed, blocks):
    tokens, mask = histories(np.random.default_rng(seed), batch, length)
    layer = InterestDecomposition(3, blocks, attention_heads=2, max_length=7, cluster=cluster)
    layer(tokens, tf.constant(mask), everywhere(mask))
    randomise(layer, seed, spread=0.3)
    found, allocation = layer(tokens, tf.constant(mask), everywhere(mask))
    expected, expected_allocation = naive.interest_decomposition(layer, tokens, mask)
    # Masked tokens are rubbish and stay so through the blocks; only valid positions mean something.
    close(found.numpy()[mask], expected[mask])
    close(allocation, expected_allocation)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_positions_pick_from_the_interests_at_every_position(randomise, blocks):
    rng = np.random.default_rng(0)
    tokens, mask = histories(rng, 3, 5)
    layer = InterestDecomposition(4, blocks, max_length=5)
    layer(tokens, tf.constant(mask), everywhere(mask))
    randomise(layer)
    found_everywhere, allocation = layer(tokens, tf.constant(mask), everywhere(mask))
    positions = tf.constant([[4, 0], [2, 2], [3, 4]])
    found, same_allocation = layer(tokens, tf.constant(mask), positions)
    close(found, tf.gather(found_everywhere, positions, batch_dims=1))
    np.testing.assert_array_equal(allocation, same_allocation)
