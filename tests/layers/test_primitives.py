"""Layer normalisation and dropout, against Keras' own and against what chance allows."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bivrec_tf.layers import Dropout, LayerNormalization
from bivrec_tf.layers.columns import scale_columns


@settings(max_examples=20, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    width=st.integers(2, 9),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 1000),
)
def test_layer_normalization_and_its_gradients_are_those_of_keras(shape, width, offset, seed):
    rng = np.random.default_rng(seed)
    # Values well apart: where all are alike, the quotient is of rounding errors in any float32.
    apart = rng.permuted(np.broadcast_to(np.arange(width), [*shape, width]), axis=-1)
    inputs = tf.constant(offset + apart + 0.1 * rng.normal(size=apart.shape), tf.float32)
    upstream = tf.constant(rng.normal(size=[*shape, width]), tf.float32)
    ours, theirs = LayerNormalization(), tf_keras.layers.LayerNormalization(epsilon=1e-6)
    results, weights = [], [rng.normal(size=width), rng.normal(size=width)]
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
        gradients = tape.gradient(outputs, [inputs, *layer.trainable_variables], upstream)
        results.append([outputs, *gradients])
    for mine, keras in zip(*results, strict=True):
        np.testing.assert_allclose(mine, keras, rtol=2e-3, atol=2e-3)


def test_layer_normalization_starts_with_its_gain():
    outputs = LayerNormalization(0.5)(tf.constant([[1.0, 3.0]]))
    np.testing.assert_allclose(outputs, [[-0.5, 0.5]], rtol=1e-4)


def test_layer_normalization_of_half_precision_is_computed_in_single(mixed_float16):
    # The square of 300 overflows float16.
    outputs = LayerNormalization()(tf.constant([[-300.0, 300.0]], tf.float16))
    assert outputs.dtype == tf.float16
    np.testing.assert_allclose(outputs, [[-1, 1]], atol=1e-3)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    outputs = Dropout(rate)(tf.ones([1001, 101]), training=True).numpy()
    count = outputs.size
    # Rounded to a 256th, and four standard deviations of chance.
    tolerance = 1 / 512 + 4 * np.sqrt(rate * (1 - rate) / count)
    assert abs((outputs == 0).mean() - rate) < tolerance
    assert abs(outputs.mean() - 1) < 4 * np.sqrt(rate / (1 - rate) / count)
    assert len(np.unique(outputs)) == 2


def test_dropout_treats_neighbours_independently_and_every_call_anew():
    layer = tf.function(lambda: Dropout(0.5)(tf.ones([4096, 16]), training=True))
    first, second = layer().numpy() > 0, layer().numpy() > 0
    pairs = [(first[:, :-1], first[:, 1:]), (first[:-1], first[1:]), (first, second)]
    for left, right in pairs:
        table = np.histogram2d(left.ravel(), right.ravel(), bins=2)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_dropout_passes_the_gradient_of_what_it_keeps_alone():
    inputs = tf.ones([50, 50])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = Dropout(0.4)(inputs, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), outputs)


def test_dropout_is_nothing_at_inference():
    inputs = tf.random.normal([3, 4])
    np.testing.assert_array_equal(Dropout(0.9)(inputs), inputs)
    np.testing.assert_array_equal(Dropout(0.0)(inputs, training=True), inputs)


@settings(max_examples=10, deadline=None)
@given(shape=st.lists(st.integers(1, 4), max_size=3), seed=st.integers(0, 1000))
def test_scaled_columns_and_their_gradients_are_those_of_a_product(shape, seed):
    rng = np.random.default_rng(seed)
    values, upstream = (tf.constant(rng.normal(size=[*shape, 3]), tf.float32) for _ in range(2))
    weights = tf.constant(rng.normal(size=3), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([values, weights])
        scaled = scale_columns(values, weights)
    of_values, of_weights = tape.gradient(scaled, [values, weights], upstream)
    np.testing.assert_allclose(scaled, values * weights, rtol=1e-6)
    np.testing.assert_allclose(of_values, upstream * weights, rtol=1e-6)
    summed = (upstream * values).numpy().reshape(-1, 3).sum(0)
    np.testing.assert_allclose(of_weights, summed, rtol=1e-4, atol=1e-5)


def test_columns_of_half_precision_are_added_up_in_single():
    # In bfloat16 itself the sum of ones would stop at 256.
    values, weights = tf.ones([10_000, 2], tf.bfloat16), tf.constant([1.0, 2.0], tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        scaled = scale_columns(values, weights)
    found = tape.gradient(scaled, weights)
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), [10_000, 10_000], rtol=0.01)
