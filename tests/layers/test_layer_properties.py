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

LENGTH = 6


def make(kind):
    return {
        "patching": lambda: MultiScalePatching((1, 3)),
        "context": lambda: ContextBlock(2, 3),
        "context, asked": lambda: ContextBlock(2, 3),
        "gaussian": lambda: GaussianAttention(3),
        "decomposition": lambda: InterestDecomposition(3, 1, 2, max_length=20),
    }[kind]()


def run(layer, tokens, mask, kind):
    """The layer's first output, with one entry a position: `[batch, length, ...]`."""
    more = ()
    if kind in ("context, asked", "gaussian", "decomposition"):
        shape = np.shape(mask)
        more = (tf.constant(np.broadcast_to(np.arange(shape[1]), shape), tf.int32),)
    result = layer(tf.constant(tokens), tf.constant(mask), *more)
    return (result[0] if isinstance(result, tuple) else result).numpy()


def ready(kind, randomise, seed=0):
    layer = make(kind)
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=[3, LENGTH, 8]).astype(np.float32)
    mask = np.arange(LENGTH)[None] >= np.array([[0], [2], [5]])
    run(layer, tokens, mask, kind)
    randomise(layer, seed)
    return layer, tokens, mask


KINDS = pytest.mark.parametrize(
    "kind", ["patching", "context", "context, asked", "gaussian", "decomposition"]
)


@KINDS
def test_left_padding_changes_nothing_whatever_stands_in_it(kind, randomise):
    layer, tokens, mask = ready(kind, randomise)
    rubbish = np.random.default_rng(1).normal(size=[3, 4, 8]).astype(np.float32) * 30
    wide = np.concatenate([rubbish, tokens], axis=1)
    wide_mask = np.pad(mask, [[0, 0], [4, 0]])
    short, long = run(layer, tokens, mask, kind), run(layer, wide, wide_mask, kind)
    np.testing.assert_allclose(long[wide_mask], short[mask], atol=1e-5)


@KINDS
def test_rows_of_a_batch_do_not_see_each_other(kind, randomise):
    layer, tokens, mask = ready(kind, randomise)
    together = run(layer, tokens, mask, kind)
    for row in range(3):
        alone = run(layer, tokens[row : row + 1], mask[row : row + 1], kind)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@KINDS
def test_the_output_at_a_position_is_that_of_the_prefix(kind, randomise):
    layer, tokens, mask = ready(kind, randomise)
    everything = run(layer, tokens, mask, kind)
    for length in range(1, LENGTH + 1):
        prefix = run(layer, tokens[:, :length], mask[:, :length], kind)
        known = mask[:, length - 1]
        np.testing.assert_allclose(everything[known, length - 1], prefix[known, -1], atol=1e-5)


@KINDS
def test_nothing_from_the_future_leaks(kind, randomise):
    layer, tokens, mask = ready(kind, randomise)
    before = run(layer, tokens, mask, kind)
    changed = tokens.copy()
    changed[:, 4:] *= -100
    after = run(layer, changed, mask, kind)
    known = mask[:, :4]
    if kind != "decomposition":  # Running sums have a reference whose rounding may move.
        np.testing.assert_array_equal(before[:, :4][known], after[:, :4][known])
    np.testing.assert_allclose(before[:, :4][known], after[:, :4][known], atol=1e-5)


def test_a_context_block_does_no_more_than_it_is_asked_for():
    """Of 2 histories of 7 tokens, 2 tokens in all reach the feed-forward network."""
    layer = ContextBlock(2, 7)
    signature = [
        tf.TensorSpec([2, 7, 8]),
        tf.TensorSpec([2, 7], tf.bool),
        tf.TensorSpec([2, 1], tf.int32),
    ]
    graph = tf.function(layer).get_concrete_function(*signature).graph
    outputs = [tensor for operation in graph.get_operations() for tensor in operation.outputs]
    shapes = {tuple(tensor.shape) for tensor in outputs if tensor.shape.is_fully_defined()}
    hidden = {math.prod(shape[:-1]) for shape in shapes if len(shape) > 1 and shape[-1] == 4 * 8}
    assert hidden == {2, 8}  # 8: the kernel itself.
    assert (2, 1, 2, 7) in shapes  # Logits: batch, positions, heads, tokens.
    assert (2, 2, 7, 7) not in shapes
    # No token's key and value but in the call that built them.
    layer(tf.zeros([2, 7, 8]), tf.ones([2, 7], tf.bool))
    graph = tf.function(lambda *of: layer(*of)).get_concrete_function(*signature).graph
    products = [o for o in graph.get_operations() if o.type in ("MatMul", "BatchMatMulV2")]
    assert 2 * 7 not in {math.prod(o.outputs[0].shape[:-1]) for o in products}


def test_the_bias_of_a_distance_learns_in_single_precision(mixed_float16, randomise):
    """Its gradient is a sum over all rows that ask; a sum of halves stops at 2,048 equal terms."""
    layer, copies = ContextBlock(1, 2), 8192
    tokens = tf.constant(np.random.default_rng(0).normal(size=[1, 2, 4]), tf.float16)
    mask, positions = tf.ones([1, 2], tf.bool), tf.ones([1, 1], tf.int32)
    layer(tokens, mask, positions)
    randomise(layer)

    def gradient(count):
        with tf.GradientTape() as tape:
            found = layer(*(tf.repeat(of, count, axis=0) for of in (tokens, mask, positions)))
            total = tf.reduce_sum(tf.cast(found[..., 0], tf.float32))
        return tape.gradient(total, layer._distance_bias).numpy()

    np.testing.assert_allclose(gradient(copies), copies * gradient(1), rtol=0.02)


def test_a_far_more_likely_token_later_does_not_change_earlier_allocations(naive, randomise):
    """Running sums share one reference: earlier positions must keep their own proportions."""
    gaussian, cluster = GaussianAttention(2), ClusterAttention()
    tokens = np.random.default_rng(0).normal(size=[1, 4, 8]).astype(np.float32)
    mask, positions = np.ones([1, 4], bool), tf.constant([[0, 1, 2, 3]])
    cluster(tokens, tf.constant(mask), positions, gaussian(tokens, tf.constant(mask), positions))
    randomise(gaussian)
    randomise(cluster, spread=0.2)
    # The last key is a mean itself; the others have log densities of about -90 beside it.
    mean, scale = gaussian._mean.numpy()[0], gaussian.scale().numpy()[0]
    direction = tokens[0] / np.linalg.norm(tokens[0], axis=1, keepdims=True)
    keys = mean + scale * direction * np.sqrt(2 * np.array([[90.0], [92.0], [91.0], [0.0]]))
    tokens[0] = keys @ np.linalg.inv(gaussian._key.kernel.numpy())
    pool = gaussian(tokens, tf.constant(mask), positions)
    _, allocation = cluster(tokens, tf.constant(mask), positions, pool)
    pooled, _ = naive.gaussian_attention(gaussian, tokens, mask)
    np.testing.assert_allclose(pool.pooled, pooled, rtol=1e-4, atol=1e-4)
    means = gaussian._mean.numpy().astype(float)
    _, expected = naive.cluster_attention(cluster, tokens, mask, pooled, means)
    np.testing.assert_allclose(allocation, expected, atol=1e-3)


@pytest.mark.parametrize("top_n", [1, 2, 3])
def test_each_token_is_assigned_in_equal_parts_to_the_top_n(top_n):
    layer = ClusterAttention(top_n)
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


def test_the_allocation_is_free_of_noise_in_training(randomise):
    rng = np.random.default_rng(0)
    tokens, mask = tf.constant(rng.normal(size=[2, 5, 8]), tf.float32), tf.ones([2, 5], tf.bool)
    positions = tf.constant([[2, 4], [1, 3]])
    gaussian, layer = GaussianAttention(3), ClusterAttention()
    pool = gaussian(tokens, mask, positions)
    layer(tokens, mask, positions, pool)
    randomise(layer, spread=0.3)
    quiet_renewals, quiet = layer(tokens, mask, positions, pool)
    noisy_renewals, noisy = layer(tokens, mask, positions, pool, training=True)
    np.testing.assert_array_equal(quiet, noisy)
    assert np.abs(quiet_renewals - noisy_renewals).max() > 1e-3


def test_the_query_is_a_sample_of_the_interest_in_training_and_its_mean_at_inference(randomise):
    layer = GaussianAttention(2)
    run(layer, np.zeros([1, 1, 8], np.float32), np.ones([1, 1], bool), "gaussian")
    randomise(layer)
    tf.random.set_seed(0)
    drawn = layer._query(20_000, training=True).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), layer._mean, atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), layer.scale(), rtol=0.05)
    np.testing.assert_array_equal(layer._query(3, training=False)[1], layer._mean)


def test_an_interest_starts_as_a_sample_near_its_mean_and_attention_starts_soft():
    layer = GaussianAttention(4)
    tokens = tf.random.stateless_normal([8, 50, 64], [1, 2])
    run(layer, tokens, np.ones([8, 50], bool), "gaussian")
    np.testing.assert_allclose(layer.scale(), 0.5, rtol=1e-5)
    logits = layer._log_density(layer._query(8, training=False), layer._key(tokens))
    entropy = tf.exp(-tf.reduce_sum(tf.nn.softmax(logits, 2) * tf.nn.log_softmax(logits, 2), 2))
    assert float(tf.reduce_mean(entropy)) > 0.2 * 50  # tokens that share an interest's attention


def test_an_interest_forgets_half_in_its_half_life():
    """Tokens that are all alike to an interest weigh by their age alone; a token tells which."""
    layer = GaussianAttention(4, max_length=50)
    tokens, mask = tf.eye(50)[tf.newaxis], tf.ones([1, 50], tf.bool)
    run(layer, tokens, mask, "gaussian")
    layer._key.kernel.assign(tf.zeros([50, 50]))
    weights = layer(tokens, mask, tf.constant([[49]])).pooled[0, 0].numpy()
    half_lives = np.array([1.63, 4.34, 11.5, 30.7])
    expected = 0.5 ** (np.arange(49, -1, -1) / half_lives[:, np.newaxis])
    np.testing.assert_allclose(weights, expected / expected.sum(1, keepdims=True), rtol=0.05)


@KINDS
def test_a_layer_comes_back_from_its_configuration(kind, randomise):
    layer, tokens, mask = ready(kind, randomise)
    again = type(layer).from_config(layer.get_config())
    run(again, tokens, mask, kind)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(run(again, tokens, mask, kind), run(layer, tokens, mask, kind))
    assert again.get_config() == layer.get_config()


def test_cluster_attention_comes_back_from_its_configuration():
    layer = ClusterAttention(2, 0.5)
    assert ClusterAttention.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.get_config()["top_n"] == 2 and layer.get_config()["temperature"] == 0.5


@KINDS
def test_float16_knows_no_nan_even_in_rows_of_padding_alone(kind, mixed_float16):
    layer = make(kind)
    tokens = tf.random.stateless_normal([3, LENGTH, 8], [1, 2], dtype=tf.float16) * 20
    mask = np.arange(LENGTH)[None] >= np.array([[0], [5], [LENGTH]])
    more = ()
    if kind in ("gaussian", "decomposition"):
        more = (tf.constant(np.broadcast_to(np.arange(LENGTH), mask.shape), tf.int32),)
    with tf.GradientTape() as tape:
        values = layer(tokens, tf.constant(mask), *more, training=True)
        values = values if isinstance(values, tuple) else (values,)
        total = sum(tf.reduce_sum(tf.cast(v, tf.float32)) for v in values)
    assert values[0].dtype == tf.float16
    for value in values:
        assert np.all(np.isfinite(np.asarray(value, np.float32)))
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert gradient is None or np.all(np.isfinite(gradient))


def test_scales_have_one_variance():
    items = tf.random.stateless_normal([500, 8, 16], [1, 2])
    layer = MultiScalePatching((4,))
    layer(items, tf.ones([500, 8], tf.bool))
    layer._norm.call = lambda tokens: tokens
    tokens = layer(items, tf.ones([500, 8], tf.bool))
    for t in range(8):
        assert math.isclose(float(tf.math.reduce_std(tokens[:, t])), 1.0, rel_tol=0.03)


def test_patches_start_as_the_items_themselves():
    items = tf.random.stateless_normal([2, 5, 16], [1, 2])
    mask = tf.ones([2, 5], tf.bool)
    alone, several = MultiScalePatching((1,)), MultiScalePatching((1, 2, 4))
    np.testing.assert_array_equal(alone(items, mask), several(items, mask))


def test_interest_dropout_takes_away_what_attentions_add_in_training_alone(randomise):
    """Almost all of it: what is left is the context, as of a layer whose attentions add nothing."""
    kept, mostly_dropped = (
        InterestDecomposition(3, 1, 2, max_length=20, gaussian=False, interest_dropout=rate)
        for rate in (0.0, 0.999)
    )
    rng = np.random.default_rng(0)
    tokens = tf.constant(rng.normal(size=[64, LENGTH, 8]), tf.float32)
    inputs = (tokens, tf.ones([64, LENGTH], tf.bool), tf.fill([64, 1], LENGTH - 1))
    for layer in (kept, mostly_dropped):
        layer(*inputs)
    randomise(kept, 0)
    mostly_dropped.set_weights(kept.get_weights())
    np.testing.assert_array_equal(mostly_dropped(*inputs)[0], kept(*inputs)[0])
    dropped = mostly_dropped(*inputs, training=True)[0].numpy()
    kept._share.assign(tf.zeros_like(kept._share))
    alone = kept(*inputs)[0].numpy()
    equal = np.isclose(dropped, alone, atol=1e-5).all(axis=-1)
    # A byte decides: one value in 256 stays, so a vector of eight is whole in all but 3 %.
    assert 0.9 < equal.mean() < 1.0
