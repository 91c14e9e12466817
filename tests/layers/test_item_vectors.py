"""The item vectors of both views: the trained table and the projected content."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.layers import ContentProjection, ItemEmbedding


def content(rng, count, sizes):
    features = {name: rng.normal(size=[count, d]).astype(np.float32) for name, d in sizes.items()}
    presence = {name: rng.random(count) < 0.7 for name in sizes}
    return features, presence


@settings(deadline=None, max_examples=15)
@given(
    count=st.integers(1, 6),
    sizes=st.dictionaries(
        st.sampled_from(["text", "image", "audio"]), st.integers(1, 5), min_size=1
    ),
    hidden_units=st.integers(0, 3),
    seed=st.integers(0, 10_000),
)
def test_content_projection_equals_its_equation(naive, randomise, count, sizes, hidden_units, seed):
    features, presence = content(np.random.default_rng(seed), count, sizes)
    layer = ContentProjection(sizes, 8, hidden_units=hidden_units)
    layer(features, presence)
    randomise(layer, seed)
    # With one feature alone the norm divides by next to nothing: leave rounding some room there.
    np.testing.assert_allclose(
        layer(features, presence),
        naive.content_projection(layer, features, presence),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_missing_modality_is_its_learned_vector_whatever_the_features_hold(randomise):
    features = {"text": np.random.default_rng(0).normal(size=[3, 4]).astype(np.float32)}
    layer = ContentProjection({"text": 4}, 8, hidden_units=5)
    layer(features, {"text": np.ones(3, bool)})
    randomise(layer)
    vectors = layer(features, {"text": np.array([True, False, False])})
    np.testing.assert_array_equal(vectors[1], vectors[2])
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(features, {"text": np.array([True, False, True])}) ** 3)
    assert np.any(tape.gradient(value, layer._missing["text"]))


def test_equal_content_gives_equal_vectors(randomise):
    features = {"text": np.array([[1, 2], [3, 4], [1, 2]], np.float32)}
    layer = ContentProjection({"text": 2}, 8)
    layer(features, {"text": np.ones(3, bool)})
    randomise(layer)
    vectors = layer(features, {"text": np.ones(3, bool)}).numpy()
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_the_order_in_which_modalities_are_written_does_not_matter():
    features = {"a": tf.ones([2, 3]), "b": -tf.ones([2, 2])}
    presence = {"a": tf.ones([2], tf.bool), "b": tf.constant([True, False])}
    one, other = ContentProjection({"a": 3, "b": 2}, 4), ContentProjection({"b": 2, "a": 3}, 4)
    one(features, presence)
    other(features, presence)
    assert [w.shape for w in one.weights] == [w.shape for w in other.weights]
    other.set_weights(one.get_weights())
    np.testing.assert_array_equal(one(features, presence), other(features, presence))


def test_whitening_is_of_present_rows_and_constant_features_are_only_centred():
    """Whitened features are uncorrelated, each of a variance of one but for the floor."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=[400, 2]) @ [[5.0, 4.0], [0.0, 1.0]]
    values = np.insert(mixed + 3.0, 1, 7.5, axis=1).astype(np.float32)
    present = rng.random(400) < 0.5
    values[~present] = 1e6
    layer = ContentProjection({"text": 3, "empty": 2}, 4)
    layer.adapt(
        {"text": values, "empty": np.ones([400, 2])},
        {"text": present, "empty": np.zeros(400, bool)},
    )
    known = values[present].astype(float)
    variances = np.sort(np.linalg.eigvalsh(np.cov(known.T, bias=True)))[::-1]
    expected = variances / (variances + 0.01 * variances.mean())
    whitened = layer.whiten({"text": known, "empty": np.ones([len(known), 2])})
    np.testing.assert_allclose(whitened["text"].numpy().mean(axis=0), 0, atol=1e-3)
    covariance = np.cov(whitened["text"].numpy().T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(expected), atol=2e-3)
    # A modality that no item has stays as it is.
    np.testing.assert_array_equal(whitened["empty"], np.ones([len(known), 2]))


def test_items_that_are_all_alike_are_centred_and_not_blown_up():
    layer = ContentProjection({"text": 3}, 4)
    layer.adapt({"text": np.full([5, 3], 2.0)}, {"text": np.ones(5, bool)})
    new = layer.whiten({"text": np.array([[2.0, 2.0, 2.5]])})["text"].numpy()
    assert np.linalg.norm(new) == pytest.approx(0.5, abs=1e-5)


def test_the_strongest_directions_of_long_features_are_kept():
    rng = np.random.default_rng(0)
    strong, turn = rng.normal(size=[600, 5]), np.linalg.qr(rng.normal(size=[300, 300]))[0]
    features = np.concatenate([10 * strong, 0.1 * rng.normal(size=[600, 295])], axis=1) @ turn
    layer = ContentProjection({"text": 300}, 4)
    layer.adapt({"text": features}, {"text": np.ones(600, bool)})
    whitened = layer.whiten({"text": features})["text"].numpy()
    assert whitened.shape == (600, 256)
    # The five strong ones can be read from it; the least-squares residual is what was lost.
    strong -= strong.mean(axis=0)
    residual = strong - whitened @ np.linalg.lstsq(whitened, strong, rcond=None)[0]
    assert np.abs(residual).max() < 0.05


def test_modality_dropout_hides_present_modalities_in_training_alone():
    features, presence = {"text": tf.ones([2000, 2])}, {"text": tf.ones([2000], tf.bool)}
    layer = ContentProjection({"text": 2}, 4, modality_dropout=0.3, hidden_units=5)
    full = layer(features, presence)
    np.testing.assert_allclose(full[0], full[-1], atol=1e-6)
    tf.random.set_seed(0)
    dropped = np.abs(layer(features, presence, training=True) - full).max(axis=1) > 1e-6
    assert dropped.mean() == pytest.approx(0.3, abs=0.04)


def test_features_beyond_float16_are_whitened_before_they_are_cast(mixed_float16):
    rng = np.random.default_rng(0)
    features = {"text": rng.normal(1e6, 1e5, size=[50, 3]).astype(np.float32)}
    presence = {"text": np.ones(50, bool)}
    layer = ContentProjection({"text": 3}, 4)
    layer.adapt(features, presence)
    vectors = layer(features, presence)
    assert vectors.dtype == tf.float16
    assert np.all(np.isfinite(vectors))
    tf_keras.mixed_precision.set_global_policy("float32")
    exact = ContentProjection({"text": 3}, 4)
    exact(features, presence)
    exact.set_weights(layer.get_weights())
    np.testing.assert_allclose(vectors, exact(features, presence), atol=0.01)


def test_item_vectors_start_at_about_length_one_in_both_views():
    table = ItemEmbedding(500, 64).table()[1:]
    features = {"text": tf.random.stateless_normal([500, 10], [1, 2])}
    projected = ContentProjection({"text": 10}, 64)(features, {"text": tf.ones([500], tf.bool)})
    for vectors in (table, projected):
        assert float(tf.reduce_mean(tf.norm(vectors, axis=1))) == pytest.approx(1.0, abs=0.1)


def test_item_embedding_looks_up_its_table_and_padding_never_moves():
    layer = ItemEmbedding(3, 2)
    rows = tf.constant([[0, 3], [1, 0]])
    vectors = layer(rows)
    table = np.concatenate([np.zeros([1, 2]), layer.embeddings.numpy()])
    np.testing.assert_array_equal(vectors, table[rows.numpy()])
    optimizer = tf_keras.optimizers.AdamW(0.1, weight_decay=0.1)
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((layer(rows) - 1.0) ** 2)
        optimizer.minimize(loss, layer.trainable_variables, tape=tape)
    assert not np.any(layer(rows)[0, 0])
    assert np.abs(layer(rows)[0, 1] - vectors[0, 1]).max() > 0.05
    np.testing.assert_array_equal(layer.table()[1:], layer.embeddings)


@pytest.mark.parametrize(
    "layer",
    [ItemEmbedding(5, 4), ContentProjection({"b": 2, "a": 3}, 4, 0.5, 6, 0.25)],
    ids=["item_embedding", "content_projection"],
)
def test_they_come_back_from_their_configuration(layer, randomise):
    again = type(layer).from_config(layer.get_config())
    inputs = (
        [tf.constant([0, 5])]
        if isinstance(layer, ItemEmbedding)
        else [
            {"a": tf.ones([2, 3]), "b": tf.ones([2, 2])},
            {"a": tf.constant([True, False]), "b": tf.constant([True, True])},
        ]
    )
    layer(*inputs)
    again(*inputs)
    randomise(layer)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(*inputs), again(*inputs))
    assert again.get_config() == layer.get_config()


def test_content_whitened_before_gives_the_vectors_of_raw_content(randomise):
    rng = np.random.default_rng(0)
    raw = {"text": (5 + 3 * rng.normal(size=[40, 6])).astype(np.float32)}
    presence = {"text": np.arange(40) % 7 > 0}
    layer = ContentProjection({"text": 6}, 8)
    layer(raw, presence)
    randomise(layer)
    layer.adapt(raw, presence)
    vectors = layer(layer.whiten(raw), presence, whitened=True)
    np.testing.assert_allclose(vectors, layer(raw, presence), atol=1e-6)
