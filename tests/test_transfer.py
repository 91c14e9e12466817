"""Transfer between catalogues: the content part moves over, whole or in part; ids never do."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig, TrainingConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from bivrec_tf.models.first_vectors import TRANSFER_PRIOR, turned_towards, wanted_of_content
from bivrec_tf.saved_model import read_saved_model
from bivrec_tf.training import fit
from bivrec_tf.transfer import warm_start

TEXT = {"encoder": "minilm", "fingerprint": "abc"}
IMAGE = {"encoder": "net", "fingerprint": "def"}
BOTH = {"text": TEXT, "image": IMAGE}


def make_model(names, modalities, seed, **config):
    """A model whose items have content that depends on their names alone."""
    tf_keras.utils.set_random_seed(seed)
    items = [
        ItemFeatures(
            name,
            {m: np.random.default_rng([n, *name.encode()]).normal(size=n) for m, n in modalities},
        )
        for name in names
    ]
    catalogue = ItemCatalogue.build(names, range(len(names), 0, -1), items)
    # Content alone is taken over: towers of one scale and no block are built sooner.
    towers = {"scales": (1,), "context_blocks": 0}
    settings = {"dimension": 8, "max_history": 6, "num_interests": 3, **towers, **config}
    model = BiVRec(ModelConfig(**settings), catalogue)
    model.build_variables()
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.normal(variable.shape) * 0.3)
    return model


# Ids of both shops are equal, and mean other items.
BIG = [f"sku {n}" for n in range(30)]
SMALL = [f"sku {n}" for n in range(12)]


@pytest.fixture(scope="module")
def big():
    return make_model(BIG, [("text", 6), ("image", 4)], seed=1)


@pytest.fixture(scope="module")
def saved(big, tmp_path_factory):
    folder = tmp_path_factory.mktemp("big") / "1"
    export(big, folder, encoders=BOTH)
    return read_saved_model(folder)


def weights(model):
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


def vectors_there(big, names):
    """What the big shop's model makes of items that both shops sell."""
    table, rows = big.item_tables()["mm"].numpy(), big.catalogue.rows(names)
    return table[rows]


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("hidden_units", [0, 5])
def test_known_is_where_the_other_model_puts_items(hidden_units, tmp_path):
    big = make_model(BIG, [("text", 6), ("image", 4)], 1, content_hidden_units=hidden_units)
    export(big, tmp_path / "1", encoders=BOTH)
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    report = warm_start(small, read_saved_model(tmp_path / "1"), BOTH)
    assert report.items == len(small.known_of_content) == 12
    there = vectors_there(big, small.catalogue.item_ids[1:])
    # Whitened again for every catalogue: equal but for rounding.
    np.testing.assert_allclose(small.known_of_content, there, rtol=1e-4, atol=1e-5)


def test_items_of_a_warm_start_are_alike_as_there_the_more_the_less_is_known_here(big, saved):
    """Two items that both shops sell, of which the small one has seen little or much."""
    there = cosines(vectors_there(big, SMALL)).ravel()
    agreement = {(1, False): [], (1, True): [], (1000, True): []}
    for seed in range(2, 7):
        neighbourhood = np.random.default_rng(seed).normal(size=[12, 8]).astype(np.float32)
        for interactions, warm in agreement:
            small = make_model(SMALL, [("text", 6), ("image", 4)], seed)
            small.catalogue.counts[1:] = interactions
            if warm:
                warm_start(small, saved, BOTH)
            small.start_from(neighbourhood)
            here = cosines(small.item_tables()["mm"].numpy()[1:]).ravel()
            agreement[interactions, warm].append(np.corrcoef(here, there)[0, 1])
    mean = {case: np.mean(found) for case, found in agreement.items()}
    assert mean[1, True] > mean[1000, True] + 0.02
    assert mean[1, True] > mean[1, False] + 0.1


def test_a_version_that_did_not_whiten_says_nothing(saved):
    older = {name: w for name, w in saved.weights.items() if not name.startswith("whitening_")}
    with pytest.raises(ConfigError, match="text: exported by a version that did not whiten"):
        small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
        warm_start(small, replace(saved, weights=older), BOTH)


def test_a_projection_of_other_weights_is_named_and_not_guessed(saved):
    kernel = "content_projection/project_text/kernel"
    for values in (None, np.zeros([2, 2])):
        other = {**saved.weights, kernel: values}
        with pytest.raises(ConfigError, match=f"not that of this one .{kernel}.. Train that"):
            warm_start(make_model(SMALL, [("text", 6)], 2), replace(saved, weights=other), BOTH)


def test_towers_and_without_a_content_prior_ids_start_as_without(saved):
    vectors = np.random.default_rng(0).normal(size=[12, 8]).astype(np.float32)
    started = {}
    for warm in (False, True):
        for prior in (0.0, 10.0):
            small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2, context_blocks=1)
            if warm:
                warm_start(small, saved, BOTH)
            small.start_from(vectors, prior)
            started[warm, prior] = weights(small)
    for name, values in started[True, 0.0].items():
        if not name.startswith("content_projection/"):
            np.testing.assert_array_equal(values, started[False, 0.0][name])
    changed = started[True, 10.0]["embeddings"] - started[False, 10.0]["embeddings"]
    assert np.abs(changed).max() > 0.01


@pytest.mark.parametrize("dimension", [4, 16])
def test_a_model_of_another_width_and_other_interests_can_be_asked(saved, big, dimension):
    there, agreement = cosines(vectors_there(big, SMALL)), {False: [], True: []}
    settings = {"dimension": dimension, "num_interests": 2}
    pairs = np.triu_indices(len(SMALL), 1)
    # Several shops: two random ones may agree by chance.
    for seed in range(5):
        vectors = np.random.default_rng(seed).normal(size=[12, dimension]).astype(np.float32)
        for warm, found in agreement.items():
            small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2 + seed, **settings)
            small.catalogue.counts[1:] = 1
            if warm:
                warm_start(small, saved, BOTH)
            small.start_from(vectors)
            here = cosines(small.item_tables()["mm"].numpy()[1:])
            found.append(np.corrcoef(here[pairs], there[pairs])[0, 1])
    assert np.mean(agreement[True]) > np.mean(agreement[False]) + 0.1


def test_a_random_start_would_use_nothing_of_it_and_is_refused(saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    warm_start(small, saved, BOTH)
    rows = tf.constant([[0, 1, 2], [1, 3, 4]])
    batch = {"sequence": rows, "is_target": rows > 0, "user": tf.constant([0, 1], tf.int64)}
    training_data = tf.data.Dataset.from_tensors(batch)
    with pytest.raises(ConfigError, match="set item_initialisation to co_occurrence"):
        fit(small, training_data, training_data, TrainingConfig(item_initialisation="random"))


def test_every_modality_stands_for_itself(saved):
    """The small shop has sounds instead of images, and an item of sound alone."""
    items = [
        ItemFeatures(str(row), {"sound": np.full(5, row), "text": np.full(6, row % 7)})
        for row in range(11)
    ]
    items.append(ItemFeatures("sound alone", {"sound": np.ones(5)}))
    catalogue = ItemCatalogue.build([item.item_id for item in items], range(12, 0, -1), items)
    small = BiVRec(ModelConfig(dimension=8, max_history=6), catalogue)
    report = warm_start(small, saved, {"text": TEXT})
    assert report.modalities == ["text"] and report.items == 11
    assert not np.any(small.known_of_content[catalogue.rows(["sound alone"])[0] - 1])
    assert report.left_out["sound"] == "the other model has no such modality"
    assert report.left_out["image"] == "no item here has this modality"


def test_what_content_is_to_say_is_a_mean_weighed_by_interactions():
    """Against its equation item by item; the last three are cold, two know nothing."""
    generator = np.random.default_rng(0)
    vectors, known = generator.normal(size=[6, 4]), generator.normal(size=[9, 5])
    known[[2, 7]] = 0.0
    counts = np.array([90, 5, 4, 3, 2, 1, 0, 0, 0])
    own = np.minimum(counts, 50)
    wanted, found = wanted_of_content(vectors.astype(np.float32), counts, known)
    there = turned_towards(known, np.pad(vectors, [[0, 3], [0, 0]]), own)
    there /= np.sqrt((there**2).sum() / 7)
    for row, count in enumerate(own):
        prior = 0.0 if row in (2, 7) else TRANSFER_PRIOR
        assert found[row] == pytest.approx(count + prior)
        if count + prior:
            mine = vectors[row] if row < 6 else np.zeros(4)
            expected = (count * mine + prior * there[row]) / (count + prior)
            np.testing.assert_allclose(wanted[row], expected, atol=1e-5)
    alone, weights = wanted_of_content(vectors, counts)
    np.testing.assert_array_equal(alone[:6], vectors)
    np.testing.assert_array_equal(weights, own)


def test_items_that_nobody_bought_weigh_no_more_than_the_others_together():
    generator = np.random.default_rng(0)
    counts = np.concatenate([np.full(5, 2), np.zeros(500, int)])
    _, weights = wanted_of_content(generator.normal(size=[5, 4]), counts, np.ones([505, 4]))
    assert weights[5:].sum() == pytest.approx(weights[:5].sum()) == 5 * (2 + TRANSFER_PRIOR)


def test_a_turn_is_found_again():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=[40, 6])
    turn, _ = np.linalg.qr(generator.normal(size=[6, 6]))
    weights = generator.integers(1, 50, 40)
    np.testing.assert_allclose(turned_towards(vectors, vectors @ turn, weights), vectors @ turn)


def test_vectors_of_another_encoder_or_length_mean_nothing_here(saved):
    small = make_model(SMALL, [("text", 6), ("image", 3)], seed=2)
    with pytest.raises(ConfigError) as error:
        warm_start(small, saved, {"text": {"encoder": "other", "fingerprint": "xyz"}})
    assert "text: made by another encoder there (minilm)" in str(error.value)
    assert "image: 4 values there, 3 here" in str(error.value)


def test_vectors_that_nobody_names_are_not_taken_for_the_same(big, tmp_path):
    """Both shops computed a `text` of six numbers; each by its own means, for all we know."""
    export(big, tmp_path / "1")
    with pytest.raises(ConfigError, match=r"made by another encoder there \(not named\)"):
        warm_start(make_model(SMALL, [("text", 6)], seed=2), read_saved_model(tmp_path / "1"), {})


def test_what_was_taken_over_is_logged(saved, caplog):
    with caplog.at_level(logging.INFO, logger="bivrec_tf.transfer"):
        warm_start(make_model(SMALL, [("text", 6)], seed=2), saved, {"text": TEXT})
    (line,) = caplog.messages
    assert "content of 12 of 12 items, by text; left out: image (no item here" in line
    assert saved.directory in line


def test_what_cannot_transfer_is_an_error(saved):
    with pytest.raises(ConfigError, match="the new model has no multimodal view"):
        warm_start(make_model(SMALL, [], seed=2, views=("id",)), saved)
