"""What holds for the layers whatever their weights: padding, prefixes, configuration, float16."""

import math

import numpy as np
import pytest
import tensorflow as tf

from bivrec_tf.layers import (
    ClusterAttention,
    ContextBlock,
    GaussianAttention,
    InterestDecomposition,
    MultiScalePatching,
)

FORMS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "patch"])
WIDTH = 2
LENGTH = 6


def make(kind, causal):
    """A layer as a function of (tokens, mask), and how many of its inputs share a position."""
    width = WIDTH if causal else 1
    if kind == "patching":
        return MultiScalePatching((1, 3), 20, causal), 1
    if kind == "context":
        return ContextBlock(2, 3 if causal else None, width), width
    if kind == "gaussian":
        return GaussianAttention(3, causal, width), width
    if kind == "decomposition":
        return InterestDecomposition(
            3, 1, 2, causal=causal, max_length=20, tokens_per_position=width
        ), width
    raise AssertionError(kind)


def run(layer, tokens, mask):
    """The layer's first output: `[batch, outputs, ...]`, causal with one entry a position."""
    result = layer(tf.constant(tokens), tf.constant(mask))
    values = (result[0] if isinstance(result, tuple) else result).numpy()
    if isinstance(layer, MultiScalePatching):
        return values, result[1].numpy()
    if isinstance(layer, InterestDecomposition) and layer.causal:
        positions = len(tokens[0]) // layer.tokens_per_position
        values = values.reshape(len(tokens), positions, *values.shape[1:])
    return values, None


def ready(kind, causal, randomise, seed=0):
    layer, width = make(kind, causal)
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=[3, LENGTH * width, 8]).astype(np.float32)
    mask = np.repeat(np.arange(LENGTH)[None] >= [[0], [2], [5]], width, axis=1)
    layer(tokens, tf.constant(mask))
    randomise(layer, seed)
    return layer, width, tokens, mask


KINDS = pytest.mark.parametrize("kind", ["patching", "context", "gaussian", "decomposition"])


@KINDS
@FORMS
def test_left_padding_changes_nothing_whatever_stands_in_it(kind, causal, randomise):
    layer, width, tokens, mask = ready(kind, causal, randomise)
    rubbish = np.random.default_rng(1).normal(size=[3, 4 * width, 8]).astype(np.float32) * 30
    wide = np.concatenate([rubbish, tokens], axis=1)
    wide_mask = np.pad(mask, [[0, 0], [4 * width, 0]])
    short, short_valid = run(layer, tokens, mask)
    long, long_valid = run(layer, wide, wide_mask)
    if kind == "patching":
        short, long = short[short_valid], long[long_valid]
    elif kind == "context":
        short, long = short[mask], long[wide_mask]
    elif causal:
        known, wide_known = mask[:, ::width], wide_mask[:, ::width]
        short, long = short[known], long[wide_known]
    np.testing.assert_allclose(long, short, atol=1e-5)


@KINDS
@FORMS
def test_rows_of_a_batch_do_not_see_each_other(kind, causal, randomise):
    layer, _, tokens, mask = ready(kind, causal, randomise)
    together, _ = run(layer, tokens, mask)
    for row in range(3):
        alone, _ = run(layer, tokens[row : row + 1], mask[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@KINDS
def test_causal_output_at_a_position_is_that_of_the_prefix(kind, randomise):
    layer, width, tokens, mask = ready(kind, True, randomise)
    everything, _ = run(layer, tokens, mask)
    # Patching gives several tokens a position, context one output for every token.
    outputs = everything.reshape(3, LENGTH, -1)
    for length in range(1, LENGTH + 1):
        prefix, _ = run(layer, tokens[:, : length * width], mask[:, : length * width])
        last = prefix.reshape(3, length, -1)[:, -1]
        np.testing.assert_allclose(outputs[:, length - 1], last, atol=1e-5)


@KINDS
def test_nothing_from_the_future_leaks(kind, randomise):
    layer, width, tokens, mask = ready(kind, True, randomise)
    before, _ = run(layer, tokens, mask)
    changed = tokens.copy()
    changed[:, 4 * width :] *= -100
    after, _ = run(layer, changed, mask)
    before, after = before.reshape(3, LENGTH, -1), after.reshape(3, LENGTH, -1)
    known = mask[:, ::width][:, :4]
    if kind in ("patching", "context"):  # Running sums have a reference whose rounding may move.
        np.testing.assert_array_equal(before[:, :4][known], after[:, :4][known])
    np.testing.assert_allclose(before[:, :4][known], after[:, :4][known], atol=1e-5)


def test_a_far_more_likely_token_later_does_not_flatten_what_stood_before_it(naive, randomise):
    """Running sums share one reference: earlier positions must keep their own proportions."""
    layer = GaussianAttention(1, causal=True)
    tokens = np.random.default_rng(0).normal(size=[1, 4, 8]).astype(np.float32)
    mask = np.ones([1, 4], bool)
    layer(tokens, tf.constant(mask))
    randomise(layer)
    # The last key is the mean itself; the others have log densities of about -90 beside it.
    mean, scale = layer._mean.numpy()[0], layer.scale().numpy()[0]
    direction = tokens[0] / np.linalg.norm(tokens[0], axis=1, keepdims=True)
    keys = mean + scale * direction * np.sqrt(2 * np.array([[90.0], [92.0], [91.0], [0.0]]))
    tokens[0] = keys @ np.linalg.inv(layer._key.kernel.numpy())
    expected = naive.gaussian_attention(layer, tokens, mask)
    np.testing.assert_allclose(layer(tokens, tf.constant(mask)), expected, atol=1e-4)


@pytest.mark.parametrize("top_n", [1, 2, 3])
@FORMS
def test_each_token_is_assigned_in_equal_parts_to_the_top_n(causal, top_n):
    layer = ClusterAttention(top_n, causal=causal)
    logits = tf.random.stateless_normal([2, 4, 5], [1, 2])
    assignment = layer._assign(logits, training=False).numpy()
    for b in range(2):
        for t in range(5):
            best = np.argsort(-logits.numpy()[b, :, t])[:top_n]
            expected = np.zeros(4)
            expected[best] = 1 / top_n
            np.testing.assert_allclose(assignment[b, :, t], expected, atol=1e-6)


def test_the_gradient_of_the_assignment_is_that_of_the_soft_allocation():
    layer = ClusterAttention(temperature=0.7)
    logits = tf.random.stateless_normal([1, 3, 4], [1, 2])
    upstream = tf.random.stateless_normal([1, 3, 4], [3, 4])
    gradients = []
    for function in (
        lambda x: layer._assign(x, training=False),
        lambda x: tf.nn.softmax(x / 0.7, axis=1),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = tf.reduce_sum(function(logits) * upstream)
        gradients.append(tape.gradient(value, logits))
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6)


def test_noise_of_the_assignment_draws_interests_by_their_allocation():
    """Gumbel noise on the logits makes the top interest a sample of their softmax."""
    tf.random.set_seed(0)
    logits = tf.tile(tf.constant([1.0, 0.0, -1.0])[tf.newaxis, :, tf.newaxis], [1, 1, 20_000])
    drawn = tf.reduce_mean(ClusterAttention()._assign(logits, training=True)[0], axis=1)
    np.testing.assert_allclose(drawn, tf.nn.softmax([1.0, 0.0, -1.0]), atol=0.015)


@FORMS
def test_the_allocation_is_free_of_noise_in_training(causal, randomise):
    rng = np.random.default_rng(0)
    tokens = tf.constant(rng.normal(size=[2, 5, 8]), tf.float32)
    interests = tf.constant(rng.normal(size=[2, 5, 3, 8] if causal else [2, 3, 8]), tf.float32)
    mask = tf.ones([2, 5], tf.bool)
    layer = ClusterAttention(causal=causal)
    layer(interests, tokens, mask)
    randomise(layer, spread=0.3)
    quiet_interests, quiet = layer(interests, tokens, mask)
    noisy_interests, noisy = layer(interests, tokens, mask, training=True)
    np.testing.assert_array_equal(quiet, noisy)
    assert np.abs(quiet_interests - noisy_interests).max() > 1e-3


def test_the_query_is_a_sample_of_the_interest_in_training_and_its_mean_at_inference(randomise):
    layer = GaussianAttention(2)
    layer(tf.zeros([1, 1, 8]), tf.ones([1, 1], tf.bool))
    randomise(layer)
    tf.random.set_seed(0)
    drawn = layer._query(20_000, training=True).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), layer._mean, atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), layer.scale(), rtol=0.05)
    np.testing.assert_array_equal(layer._query(3, training=False)[1], layer._mean)


def test_an_interest_starts_as_a_sample_near_its_mean_and_attention_starts_soft():
    layer = GaussianAttention(4)
    tokens = tf.random.stateless_normal([8, 50, 64], [1, 2])
    layer(tokens, tf.ones([8, 50], tf.bool))
    np.testing.assert_allclose(layer.scale(), 0.5, rtol=1e-5)
    logits = layer._log_density(layer._query(8, training=False), layer._key(tokens))
    entropy = tf.exp(-tf.reduce_sum(tf.nn.softmax(logits, 1) * tf.nn.log_softmax(logits, 1), 1))
    assert float(tf.reduce_mean(entropy)) > 0.2 * 50  # tokens that share an interest's attention


@KINDS
@FORMS
def test_a_layer_comes_back_from_its_configuration(kind, causal, randomise):
    layer, _, tokens, mask = ready(kind, causal, randomise)
    again = type(layer).from_config(layer.get_config())
    run(again, tokens, mask)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(run(again, tokens, mask)[0], run(layer, tokens, mask)[0])
    assert again.get_config() == layer.get_config()


@FORMS
def test_cluster_attention_comes_back_from_its_configuration(causal, randomise):
    rng = np.random.default_rng(0)
    tokens = tf.constant(rng.normal(size=[2, 6, 8]), tf.float32)
    interests = tf.constant(rng.normal(size=[2, 3, 4, 8] if causal else [2, 4, 8]), tf.float32)
    layer = ClusterAttention(2, 0.5, causal, 2 if causal else 1, dropout=0.1)
    layer(interests, tokens, tf.ones([2, 6], tf.bool))
    randomise(layer)
    again = ClusterAttention.from_config(layer.get_config())
    again(interests, tokens, tf.ones([2, 6], tf.bool))
    again.set_weights(layer.get_weights())
    for old, new in zip(
        layer(interests, tokens, tf.ones([2, 6], tf.bool)),
        again(interests, tokens, tf.ones([2, 6], tf.bool)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    assert again.get_config() == layer.get_config()


@KINDS
@FORMS
def test_float16_knows_no_nan_even_in_rows_of_padding_alone(kind, causal, mixed_float16):
    layer, width = make(kind, causal)
    tokens = tf.random.stateless_normal([3, LENGTH * width, 8], [1, 2], dtype=tf.float16) * 20
    mask = np.repeat(np.arange(LENGTH)[None] >= [[0], [5], [LENGTH]], width, axis=1)
    with tf.GradientTape() as tape:
        values = layer(tokens, tf.constant(mask), training=True)
        values = values if isinstance(values, tuple) else (values,)
        total = sum(tf.reduce_sum(tf.cast(v, tf.float32)) for v in values)
    assert values[0].dtype == tf.float16
    for value in values:
        assert np.all(np.isfinite(np.asarray(value, np.float32)))
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert gradient is None or np.all(np.isfinite(gradient))


def test_scales_have_one_variance():
    items = tf.random.stateless_normal([500, 8, 16], [1, 2])
    layer = MultiScalePatching((1, 2, 4), 8)
    layer(items, tf.ones([500, 8], tf.bool))
    tokens, _ = layer._patches(items, tf.ones([500, 8, 1]))
    for start, stop in ((0, 8), (8, 12), (12, 14)):
        assert math.isclose(float(tf.math.reduce_std(tokens[:, start:stop])), 1.0, rel_tol=0.03)
