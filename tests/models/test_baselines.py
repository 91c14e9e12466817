"""The baselines against their equations, and as models that train, rank and learn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf import data
from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import LossConfig, ModelConfig, TrainingConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.evaluation import RankingEvaluator, popularity_ranks
from bivrec_tf.losses import BinaryNegative
from bivrec_tf.models import MODEL_NAMES, ComiRecSA, Popularity, SASRec, create_model
from bivrec_tf.training import fit

NAMES = [f"item {row:02d}" for row in range(1, 13)]
CATALOGUE = ItemCatalogue.build(NAMES, range(40, 28, -1))
HISTORIES = np.array([[0, 0, 3, 1, 4], [5, 9, 2, 6, 7]], np.int32)


@pytest.fixture(scope="module")
def naive():
    path = Path(__file__).parents[1] / "layers" / "naive_layers.py"
    spec = importlib.util.spec_from_file_location("naive_layers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(kind, loss=None, **changes):
    tf_keras.utils.set_random_seed(0)
    settings = {"views": ("id",), "dimension": 8, "num_interests": 3, "max_history": 6}
    model = kind(ModelConfig(**{**settings, "dropout": 0.0, **changes}), CATALOGUE, loss)
    model.build_variables()
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.4)
    return model


def test_sasrec_is_its_blocks_over_item_vectors(naive):
    model = make(SASRec, context_blocks=2)
    tower = model._towers["id"]
    items = model.item_tables()["id"].numpy()[HISTORIES]
    mask = HISTORIES > 0
    tokens = naive.layer_norm(tower._input_norm, items.astype(float))
    for block in tower._blocks:
        tokens = naive.context_block(block, tokens, mask)
    expected = naive.layer_norm(tower._norm, tokens)[:, -1]
    found = model(tf.constant(HISTORIES))["id"]
    assert found.shape == (2, 1, 8)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)


def test_comirec_pools_items_by_its_attention():
    model = make(ComiRecSA)
    tower = model._towers["id"]
    found = model(tf.constant(HISTORIES))["id"].numpy()
    for row, history in enumerate(HISTORIES):
        items = model.item_tables()["id"].numpy()[history[history > 0]]
        placed = items + tower._positions.numpy()[: len(items)]
        logits = np.tanh(placed @ tower._hidden.kernel.numpy()) @ tower._logits.kernel.numpy()
        weights = np.exp(logits) / np.exp(logits).sum(axis=0)
        np.testing.assert_allclose(found[row], weights.T @ items, atol=1e-5)


@pytest.mark.parametrize("kind", [SASRec, ComiRecSA])
def test_training_sees_at_a_position_what_serving_sees_after_the_same_history(kind):
    model = make(kind)
    tables = {"id": model.item_table("id", model.num_rows)}
    rows = tf.constant(HISTORIES)
    positions = tf.constant([[2, 3, 4], [0, 2, 4]])
    everywhere = model.view_interests("id", tables, rows, positions).vectors
    for row in range(2):
        for place, t in enumerate(positions.numpy()[row]):
            prefix = model(rows[row : row + 1, : t + 1])["id"][0]
            np.testing.assert_allclose(everywhere[row, place], prefix, atol=1e-5)


def test_popularity_ranks_as_the_counts_do():
    model = make(Popularity)
    batch = {
        "history": tf.constant(HISTORIES),
        "target": tf.constant([[2, 12], [1, 8]], tf.int32),
    }
    (found,) = RankingEvaluator(model).ranks([batch])
    expected = popularity_ranks(tf.constant(CATALOGUE.counts), batch["history"], batch["target"])
    np.testing.assert_array_equal(found, expected)


def test_the_readout_of_the_target_trains_the_interest_that_scores_it_highest():
    model = make(ComiRecSA, readout="target")
    queries = tf.random.stateless_normal([5, 3, 8], [1, 2])
    items = tf.random.stateless_normal([12, 8], [3, 4])
    targets = tf.constant([0, 4, 4, 11, 7])
    own = np.einsum("nkd,nd->nk", queries, items.numpy()[targets.numpy()])
    chosen = queries.numpy()[np.arange(5), own.argmax(axis=1)]
    logits = chosen @ items.numpy().T
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), targets.numpy()])
    assert float(model.task_loss(queries, items, targets)) == pytest.approx(expected, rel=1e-5)


def test_the_binary_loss_is_that_of_one_uniform_other_item():
    tf.random.set_seed(0)
    queries = tf.random.stateless_normal([1, 1, 4], [1, 2])
    items = tf.random.stateless_normal([5, 4], [3, 4])
    scores = items.numpy() @ queries.numpy()[0, 0]
    others = [row for row in range(5) if row != 2]
    expected = np.log1p(np.exp(-scores[2])) + np.mean(np.log1p(np.exp(scores[others])))
    many = tf.tile(queries, [40_000, 1, 1])
    found = BinaryNegative()(many, items, tf.fill([40_000], 2))
    assert float(found) == pytest.approx(expected, rel=0.01)
    assert float(BinaryNegative()(queries[:0], items, tf.zeros([0], tf.int32))) == 0.0


@pytest.mark.parametrize(
    ("kind", "softmax"), [(SASRec, "full"), (SASRec, "binary"), (ComiRecSA, "full")]
)
def test_a_baseline_learns_a_cycle(kind, softmax):
    rng = np.random.default_rng(0)
    walks = [[NAMES[(start + n) % 12] for n in range(7)] for start in rng.integers(0, 12, 60)]
    lookup = data.ItemLookup(CATALOGUE)
    windows = data.serialize_sequences([(f"u{n}", [], walk) for n, walk in enumerate(walks)])
    batches = data.training_batches(data.windows_from_ids(windows, lookup), 6, 16, seed=0)
    held_out = data.serialize_sequences([("v", walk[:-1], walk[-1:]) for walk in walks[:20]])
    validation = data.evaluation_batches(held_out, lookup, 20)
    tf_keras.utils.set_random_seed(0)
    config = ModelConfig(views=("id",), dimension=16, num_interests=2, max_history=6, dropout=0.0)
    model = kind(config, CATALOGUE, LossConfig(softmax=softmax))
    options = TrainingConfig(epochs=15, learning_rate=0.02)
    result = fit(model, batches, validation, options, verbose=0)
    assert result.metrics["ndcg_at_10"] > 0.7


def test_a_model_of_every_name_ranks_and_has_the_views_of_its_name(catalogue):
    batch = {"history": tf.constant(HISTORIES), "target": tf.constant([[2], [8]], tf.int32)}
    views = {"pure_mm": ("mm",), "bivrec": ("id", "mm")}
    config = ModelConfig(dimension=8, max_history=6)
    for name in MODEL_NAMES:
        model = create_model(name, config, catalogue)
        assert model.config.views == views.get(name, ("id",))
        (ranks,) = RankingEvaluator(model).ranks([batch])
        assert ((ranks.numpy() >= 1) & (ranks.numpy() <= catalogue.num_items)).all()
    with pytest.raises(ConfigError, match="no model 'sas'; known are popularity, sasrec"):
        create_model("sas", config, catalogue)
