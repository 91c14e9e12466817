"""The dense layer against NumPy, with its product in float32 and in bfloat16."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from scipy import special

from bivrec_tf.layers import Dense
from bivrec_tf.precision import BFloat16Products, multiplies_bfloat16, set_policy


@pytest.fixture(params=["float32", BFloat16Products.NAME])
def precision(request):
    set_policy(request.param)
    yield request.param
    set_policy("float32")


def rounded(values, precision):
    """What a product sees of values."""
    dtype = tf.float32 if precision == "float32" else tf.bfloat16
    return tf.cast(tf.cast(values, dtype), tf.float64).numpy()


def tolerance_of(precision, terms):
    """How far a product of `terms` terms may be off, relative to the largest."""
    if precision == "float32":
        return 1e-5
    # Without instructions for bfloat16 a kernel rounds every partial sum, not the whole alone.
    return 2**-8 * (1 if multiplies_bfloat16() else terms)


def test_only_the_product_is_rounded(precision):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(3, 5, 7)).astype(np.float32)
    upstream = random.normal(size=(3, 5, 4)).astype(np.float32)
    layer = Dense(4)
    layer(inputs)
    kernel, bias = random.normal(size=(7, 4)), 1e3 + random.normal(size=4)
    layer.set_weights([kernel, bias])
    kernel = layer.kernel.numpy()
    x, w, up = (rounded(values, precision) for values in (inputs, kernel, upstream))
    with tf.GradientTape() as tape:
        watched = tf.constant(inputs)
        tape.watch(watched)
        outputs = layer(watched)
        loss = tf.reduce_sum(outputs * upstream)
    of_inputs, of_kernel, of_bias = tape.gradient(loss, [watched, layer.kernel, layer.bias])
    product = x @ w
    # A bias of a thousand would swallow the product, were they added in bfloat16.
    allowed = tolerance_of(precision, 7) * np.abs(product).max() + 1e-3
    np.testing.assert_allclose(outputs - bias.astype(np.float32), product, atol=allowed)
    expected = (
        (of_inputs, np.einsum("nlo,io->nli", up, w), 4),
        (of_kernel, np.einsum("nli,nlo->io", x, up), 15),
    )
    for found, wanted, terms in expected:
        allowed = tolerance_of(precision, terms) * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, atol=allowed)
    np.testing.assert_allclose(of_bias, upstream.sum(axis=(0, 1)), rtol=1e-4, atol=1e-4)
    assert outputs.dtype == of_kernel.dtype == layer.kernel.dtype == tf.float32
    # The rounding of inputs is there, and only where it was asked for.
    exact = inputs.astype(np.float64) @ kernel
    assert (np.abs(product - exact).max() > 1e-4) == (precision != "float32")


def test_an_activation_is_of_the_product_in_float32(precision):
    random = np.random.default_rng(1)
    inputs = random.normal(size=(40, 3, 16)).astype(np.float32)
    layer = Dense(8, activation="gelu")
    layer(inputs)
    # A bias that bfloat16 would round away.
    layer.set_weights([random.normal(size=(16, 8)), 1 + 2**-12 * random.normal(size=8)])
    product = rounded(inputs, precision) @ rounded(layer.kernel, precision)
    before = product + layer.bias.numpy()
    allowed = tolerance_of(precision, 16) * np.abs(product).max()
    # Where a graph makes one operation of all three, as well.
    for found in (layer(inputs), tf.function(layer)(inputs)):
        np.testing.assert_allclose(found, before * special.ndtr(before), atol=allowed)
    alone = layer(np.zeros_like(inputs[:1, :1]))[0, 0]
    np.testing.assert_allclose(alone, layer.bias * special.ndtr(layer.bias), rtol=1e-6)


def test_shapes_unknown_while_tracing_stay_known_in_width(precision):
    layer = Dense(4, activation="gelu")
    layer.build([None, 3])
    widths = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3])])
    def run(inputs):
        outputs = layer(inputs)
        widths.append(outputs.shape.as_list())
        return outputs

    assert run(tf.ones([2, 0, 3])).shape == [2, 0, 4]
    assert widths == [[None, None, 4]]


def test_a_policy_of_keras_is_the_layer_of_keras():
    set_policy("mixed_bfloat16")
    try:
        own, keras = Dense(4), tf_keras.layers.Dense(4)
        inputs = tf.random.normal([2, 3])
        own(inputs), keras(inputs)
        keras.set_weights(own.get_weights())
        assert own(inputs).dtype == tf.bfloat16
        np.testing.assert_array_equal(own(inputs), keras(inputs))
    finally:
        set_policy("float32")
