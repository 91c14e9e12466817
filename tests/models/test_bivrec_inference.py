"""The model at inference: padding, batches, bits, cold items and equal content."""

import numpy as np
import pytest
import tensorflow as tf

from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import ModelConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.models import BiVRec
from bivrec_tf.models.view_tower import ViewTower

VIEWS = ("id", "mm")


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(scales=(1, 2, 4))


def score(model, histories):
    """Serving scores of all rows but padding: `[n, rows - 1]`, row `v` in column `v - 1`."""
    found = model.build_index().search(model(tf.constant(histories)), k=model.num_rows)
    scores, rows = found.scores.numpy()[:, :-1], found.rows.numpy()[:, :-1]
    ordered = np.zeros_like(scores)
    np.put_along_axis(ordered, rows - 1, scores, axis=1)
    return ordered


def test_neither_padding_nor_unknown_items_nor_the_batch_change_interests_or_scores(model):
    plain = [[4, 7, 1, 13]]
    interests, scores = model(tf.constant(plain)), score(model, plain)
    for others in (
        [[0, 0, 4, 7, 1, 13]],
        [[4, 0, 7, 1, 0, 13, 0, 0, 0]],
        [[4, 7, 1, 13, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]],
        [[4, 7, 1, 13], [9, 9, 9, 9]],
    ):
        again = model(tf.constant(others))
        for view in VIEWS:
            np.testing.assert_allclose(again[view][:1], interests[view], atol=1e-5)
        np.testing.assert_allclose(score(model, others)[:1], scores, atol=1e-5)


def test_only_the_latest_items_of_a_long_history_count(model):
    long = model(tf.constant([[9, 8, 7, 1, 2, 3, 4, 5, 6]]))
    cropped = model(tf.constant([[1, 2, 3, 4, 5, 6]]))
    for view in VIEWS:
        np.testing.assert_array_equal(long[view], cropped[view])


def test_an_empty_history_has_finite_interests_of_its_own(model):
    found = model.interests(tf.zeros([2, 0], tf.int32))
    for view in VIEWS:
        assert found[view].vectors.shape == (2, 3, 8)
        assert np.all(np.isfinite(found[view].vectors))
        assert not np.any(found[view].allocation)


def test_inference_is_the_same_to_the_bit(model):
    histories = tf.constant([[1, 2, 3], [0, 5, 13]])
    function = tf.function(model)
    for view in VIEWS:
        np.testing.assert_array_equal(model(histories)[view], model(histories)[view])
        np.testing.assert_array_equal(function(histories)[view], function(histories)[view])


@pytest.mark.parametrize("way", ["weights", "checkpoint"])
def test_stored_weights_come_back_to_the_bit(make_model, way, tmp_path):
    model, other = make_model(), make_model(seed=1)
    histories = tf.constant([[1, 2, 3], [0, 5, 13]])
    model.id_weight.assign(0.3)
    model.cold_offset.assign(-1.0)
    assert np.abs(model(histories)["id"] - other(histories)["id"]).max() > 0.1
    if way == "weights":
        model.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
    else:
        path = tf.train.Checkpoint(model=model).save(str(tmp_path / "model"))
        tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    for view in VIEWS:
        np.testing.assert_array_equal(model(histories)[view], other(histories)[view])
    np.testing.assert_array_equal(score(model, [[1, 2, 3]]), score(other, [[1, 2, 3]]))


def test_score_temperature_divides_interests(make_model):
    warm, cool = make_model(score_temperature=0.5), make_model()
    histories = tf.constant([[1, 2, 3]])
    np.testing.assert_allclose(warm(histories)["id"], 2.0 * cool(histories)["id"], rtol=1e-6)


def test_one_scale_one_interest_and_no_context_is_plain_attention_pooling():
    config = ModelConfig(
        scales=(1,), num_interests=1, context_blocks=0, dimension=6, max_history=5, dropout=0.0
    )
    rng = np.random.default_rng(0)
    items = rng.normal(size=[1, 5, 6]).astype(np.float32)
    mask, last = tf.ones([1, 5], tf.bool), tf.constant([[4]])
    tower = ViewTower(config)
    tower(items, mask, last)
    tower.set_weights([rng.normal(size=w.shape) * 0.5 for w in tower.get_weights()])
    found = tower(items, mask, last)

    def norm(layer, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * layer.gamma.numpy() + layer.beta.numpy()

    patching, decomposition = tower._patching, tower._decomposition
    tokens = norm(patching._norm, items[0] * patching._weights[0].numpy())
    context = norm(decomposition._present_norm, tokens)
    gaussian = decomposition._gaussian
    mean, sigma = gaussian._mean.numpy(), gaussian.scale().numpy()
    distances = (((mean - tokens @ gaussian._key.kernel.numpy()) / sigma) ** 2).sum(axis=1)
    weights = np.exp(-0.5 * distances - gaussian.rate().numpy() * np.arange(4, -1, -1))
    pooled = weights @ tokens / weights.sum()
    # A single interest is given every token: the sum over n tokens, divided by n + 1.
    held = norm(decomposition._pool_norm, pooled + tokens.sum(axis=0) / 6)
    interest = context[4] + decomposition._share.numpy() * held + decomposition._offset.numpy()[0]
    expected = norm(decomposition._norm, interest)
    np.testing.assert_allclose(found.vectors[0, 0, 0], expected, atol=1e-5)
    np.testing.assert_allclose(found.allocation, np.ones([1, 1, 5]), atol=1e-6)


def test_the_multimodal_view_reads_of_a_history_what_the_id_view_knows(make_model, catalogue):
    model, of_content = make_model(), make_model(multimodal_history="content")
    of_content.set_weights(model.get_weights())
    tables = model.item_tables()
    together = {**tables, "mm": tables["mm"] + tables["id"]}
    rows = tf.constant([[1, 4, 2]])
    found, alone = model(rows), of_content(rows)
    expected = of_content.interests(rows, together)["mm"].vectors
    np.testing.assert_allclose(found["mm"], expected, atol=1e-5)
    assert np.abs(found["mm"] - alone["mm"]).max() > 0.01
    np.testing.assert_array_equal(found["id"], alone["id"])
    # Of a cold item there is content alone.
    cold = tf.constant([catalogue.rows(["c1"])])
    np.testing.assert_allclose(model(cold)["mm"], of_content(cold)["mm"], atol=1e-6)


def test_histories_of_the_multimodal_view_teach_no_id_vectors(model):
    rows, last = tf.constant([[1, 4, 2]]), tf.constant([[2]])
    embeddings = model._item_embedding.trainable_variables
    for view, teaches in (("id", True), ("mm", False)):
        with tf.GradientTape() as tape:
            tables = {name: model.item_table(name, model.num_rows) for name in VIEWS}
            total = tf.reduce_sum(model.view_interests(view, tables, rows, last).vectors ** 3)
        assert [g is not None for g in tape.gradient(total, embeddings)] == [teaches]


def test_equal_content_is_one_vector_whatever_the_id_and_cold_items_have_one(model, catalogue):
    tables = {view: table.numpy() for view, table in model.item_tables().items()}
    trained, cold = catalogue.rows(["t02", "c1"])
    np.testing.assert_allclose(tables["mm"][trained], tables["mm"][cold], atol=1e-6)
    assert np.abs(tables["id"][trained]).max() > 0.1
    assert not np.any(tables["id"][catalogue.num_trained + 1 :])
    assert np.abs(tables["mm"][catalogue.num_trained + 1 :]).max(axis=1).min() > 0.1
    no_content = catalogue.rows(["t05", "t09"])
    np.testing.assert_allclose(*tables["mm"][no_content], atol=1e-6)
    for table in tables.values():
        assert not np.any(table[0])
        assert table.shape == (len(catalogue.item_ids), 8)


def test_statistics_of_content_are_of_trained_items_alone(model, catalogue):
    projection = model._content_projection
    for name in ("text", "image"):
        trained = slice(1, catalogue.num_trained + 1)
        values = catalogue.content[name][trained][catalogue.presence[name][trained]]
        np.testing.assert_allclose(projection._means[name], values.mean(axis=0), atol=1e-4)
        whitened = (values - values.mean(axis=0)) @ projection._whitenings[name].numpy()
        spread = np.cov(whitened.T, bias=True)
        np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-4)
        assert np.all(np.diag(spread) > 0.8) and np.all(np.diag(spread) <= 1.0)


def test_what_is_added_to_both_views_scores(model, catalogue):
    model.id_weight.assign(0.3)
    model.popularity_weight.assign(-0.4)
    model.cold_offset.assign(-2.0)
    histories = [[4, 7, 1]]
    best = {
        view: (model(tf.constant(histories))[view].numpy() @ table.numpy().T).max(axis=1)
        for view, table in model.item_tables().items()
    }
    expected = 0.3 * best["id"] + 0.7 * best["mm"]
    trained = slice(1, catalogue.num_trained + 1)
    expected[:, trained] -= 0.4 * np.log(catalogue.counts[trained])
    # A cold item has the multimodal view alone, and an offset.
    cold = slice(catalogue.num_trained + 1, None)
    expected[:, cold] = best["mm"][:, cold] - 2.0
    np.testing.assert_allclose(score(model, histories), expected[:, 1:], atol=1e-5)
    model.id_weight.assign(0.5)
    model.cold_offset.assign(0.0)
    model.popularity_weight.assign(0.0)


def test_every_known_item_of_a_history_is_allocated_and_padding_is_not(model):
    rows = tf.constant([[0, 4, 7, 1, 3], [0, 0, 0, 0, 2]])
    for view in VIEWS:
        allocation = model.interests(rows)[view].allocation.numpy()
        assert allocation.shape == (2, 3, 5)
        np.testing.assert_allclose(allocation.sum(axis=1), rows.numpy() > 0, atol=1e-5)


def test_the_multimodal_view_needs_content():
    catalogue = ItemCatalogue.build(["a"], [1])
    with pytest.raises(
        ConfigError, match=r"model\.views .* no item has content .* `views: \[id\]`"
    ):
        BiVRec(ModelConfig(), catalogue)
