"""What is served is what was measured: over gRPC and offline, for every user of the sample."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras

from benchmarks.prepared import prepare, sequence_config
from bivrec_tf import data, features, training
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig, TrainingConfig
from bivrec_tf.evaluation import RankingEvaluator
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from serving.client import RecommenderClient
from serving.process import ServerProcess

SAMPLE = Path(__file__).parents[2] / "data" / "ml-latest-small"
MAX_HISTORY = 50
TOP = 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample's sequences, its items with the features of their posters."""
    cache = tmp_path_factory.mktemp("prepared")
    prepared = prepare(SAMPLE, sequence_config("temporal", MAX_HISTORY), cache, content=False)
    vectors = np.load(SAMPLE / "image_features.npy")
    rows = pd.read_csv(SAMPLE / "image_features_ids.csv", dtype={"item_id": str})
    items = [
        ItemFeatures(item_id, {"image": vectors[row].astype(np.float32)})
        for item_id, row in zip(rows.item_id, rows.row, strict=True)
    ]
    trained = prepared.catalogue
    catalogue = ItemCatalogue.build(trained.item_ids[1:], trained.counts[1:], items)
    return prepared, catalogue


@pytest.fixture(scope="module")
def model(sample):
    """A model of both views and four interests, trained for an epoch."""
    prepared, catalogue = sample
    tf_keras.utils.set_random_seed(0)
    options = TrainingConfig(epochs=1, batch_size=64)
    config = ModelConfig(dimension=16, max_history=MAX_HISTORY, num_interests=2)
    model = BiVRec(config, catalogue, positions_per_sequence=4)
    batches = data.training_batches(prepared.training_windows(), MAX_HISTORY, 64, 0)
    training.fit(model, batches, prepared.batches("validation", most=200), options, verbose=0)
    return model


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    export(model, base / "1")
    with (
        ServerProcess(str(base)) as server,
        RecommenderClient(server.target, timeout=60) as client,
    ):
        yield client


def offline_scores(model, histories):
    """Scores of every item, float64 `[n, rows]`, by the formula of docs/model.md, section 5."""
    tables = {view: table.numpy().astype(float) for view, table in model.item_tables().items()}
    rows = tf.ragged.constant(
        [model.catalogue.rows(history) for history in histories], dtype=tf.int32
    ).to_tensor()
    best = {
        view: np.einsum("nkd,vd->nkv", found.vectors.numpy().astype(float), tables[view]).max(1)
        for view, found in model.interests(rows).items()
    }
    is_cold = np.arange(model.num_rows) > model.catalogue.num_trained
    weight = np.where(is_cold, 0.0, float(model.id_weight))
    popularity = float(model.popularity_weight) * np.log(np.maximum(model.catalogue.counts, 1))
    offset = np.where(is_cold, float(model.cold_offset), popularity)
    return weight * best["id"] + (1 - weight) * best["mm"] + offset


def check(model, histories, *answers):
    """Compares served lists with the offline order; items of equal scores may change places."""
    known = [history for history in histories if any(model.catalogue.rows(history))]
    scores = (
        dict(zip(map(tuple, known), offline_scores(model, known), strict=True)) if known else {}
    )
    shares = np.log((model.catalogue.counts + 0.5) / (model.catalogue.counts.sum() + 0.5))
    for number, history in enumerate(histories):
        own = scores.get(tuple(history), shares).copy()
        own[[0, *model.catalogue.rows(history)]] = -np.inf
        best = np.sort(own)[::-1][:TOP]
        allowed = 1e-5 * np.maximum(1.0, np.abs(best))
        for answer in answers:
            names = (item.decode() for item in answer[features.ITEM_IDS][number])
            served = model.catalogue.rows(names)
            assert len(set(served)) == TOP and 0 not in served
            assert np.all(np.abs(own[served] - best) <= allowed), f"history {number}"
            assert np.all(np.abs(answer[features.SCORES][number] - best) <= allowed)


def padded(histories):
    width = max(map(len, histories), default=0)
    return np.array([[*history, *[""] * (width - len(history))] for history in histories], object)


def ids(catalogue, rows):
    return [catalogue.item_ids[row] for row in rows if row]


def test_every_test_user_of_the_sample_is_served_the_list_of_the_offline_evaluation(
    sample, model, client
):
    prepared, catalogue = sample
    histories = [ids(catalogue, history) for _, history, _ in prepared.held_out["test"]]
    assert len(histories) > 50
    evaluator = RankingEvaluator(model)
    examples = data.serialize_sequences(
        [(str(n), history, ["nothing"]) for n, history in enumerate(histories)]
    )
    examples = list(examples.as_numpy_iterator())
    for start in range(0, len(histories), 100):
        part = histories[start : start + 100]
        served = client.predict(features.SERVING_DEFAULT, {features.HISTORY: padded(part)})
        by_example = client.predict(
            features.EXAMPLES, {"examples": np.array(examples[start : start + 100], object)}
        )
        check(model, part, served, by_example)
        if start >= 200:
            continue
        # And by the evaluator that makes the figures: a served item's rank is its place.
        places = np.array(
            [model.catalogue.rows(i.decode() for i in row) for row in served["item_ids"]]
        )
        batch = {
            "history": tf.constant(_rows(catalogue, part)),
            "target": tf.constant(places, tf.int32),
        }
        dataset = tf.data.Dataset.from_tensors(batch)
        (ranks,) = evaluator.ranks(dataset)
        close = np.abs(np.diff(served["scores"], axis=1)) < 1e-5
        tied = np.pad(close, [[0, 0], [1, 0]]) | np.pad(close, [[0, 0], [0, 1]])
        expected = np.broadcast_to(np.arange(1, TOP + 1), ranks.shape)
        np.testing.assert_array_equal(np.where(tied, expected, ranks), expected)


def test_odd_histories_are_served_as_they_are_scored_offline(sample, model, client):
    _, catalogue = sample
    generator = np.random.default_rng(1)
    names = [*catalogue.item_ids[1:], *(f"nothing like {n}" for n in range(500))]

    def draw(length):
        return [str(name) for name in generator.choice(names, length)]

    histories = [[], ["nowhere"], draw(1), draw(1), draw(7), draw(60), draw(1000), draw(999)]
    histories += [draw(int(length)) for length in generator.integers(1, 40, 20)]
    served = client.predict(features.SERVING_DEFAULT, {features.HISTORY: padded(histories)})
    examples = data.serialize_sequences([("u", history, ["x"]) for history in histories])
    by_example = client.predict(
        features.EXAMPLES, {"examples": np.array(list(examples.as_numpy_iterator()), object)}
    )
    check(model, histories, served, by_example)
    for history in histories[:8]:
        alone = client.predict(
            features.SERVING_DEFAULT, {features.HISTORY: padded([history]).reshape(1, -1)}
        )
        check(model, [history], alone)
        unknown = sum(not row for row in catalogue.rows(history))
        assert alone[features.UNKNOWN_ITEMS].tolist() == [unknown]


def _rows(catalogue, histories):
    rows = [catalogue.rows(history) for history in histories]
    width = max(map(len, rows))
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)
