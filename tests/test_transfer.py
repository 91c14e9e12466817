"""Transfer between catalogues: the content part moves over, whole or in part; ids never do."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from pydantic import ValidationError

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig, TrainingConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from bivrec_tf.models.first_vectors import TRANSFER_PRIOR, turned_towards, wanted_of_content
from bivrec_tf.saved_model import read_saved_model
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
    settings = {"dimension": 8, "max_history": 6, "num_interests": 3, **config}
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


def test_known_is_where_the_other_model_puts_items_up_to_one_scale(big, saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    report = warm_start(small, saved, BOTH)
    there = vectors_there(big, small.catalogue.item_ids[1:])
    known = small.known_of_content
    assert report.items == len(known) == 12
    assert (known**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)
    scale = np.sqrt((there**2).sum(axis=1).mean())
    np.testing.assert_allclose(known, there / scale, rtol=1e-3, atol=1e-4)


def test_items_of_a_warm_start_are_alike_as_there_the_more_the_less_is_known_here(big, saved):
    """Two items that both shops sell, of which the small one has seen little or much."""
    neighbourhood = np.random.default_rng(0).normal(size=[12, 8]).astype(np.float32)
    there, agreement = cosines(vectors_there(big, SMALL)), {}
    for interactions, warm in ((1, False), (1, True), (1000, True)):
        small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
        small.catalogue.counts[1:] = interactions
        if warm:
            warm_start(small, saved, BOTH)
        small.start_from(neighbourhood)
        here = cosines(small.item_tables()["mm"].numpy()[1:])
        agreement[interactions, warm] = np.corrcoef(here.ravel(), there.ravel())[0, 1]
    assert agreement[1, True] > agreement[1000, True] + 0.02
    assert agreement[1, True] > agreement[1, False] + 0.1


def test_a_version_that_did_not_whiten_says_nothing_of_a_modality(saved):
    older = {name: w for name, w in saved.weights.items() if name != "whitening_text"}
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    report = warm_start(small, replace(saved, weights=older), BOTH)
    assert "did not whiten" in report.left_out["text"]
    assert report.modalities == ["image"]


def test_no_weight_is_copied(saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    before = weights(small)
    warm_start(small, saved, BOTH)
    for name, values in weights(small).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_model_of_another_width_and_other_interests_can_be_asked(saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2, dimension=4, num_interests=2)
    warm_start(small, saved, BOTH)
    small.start_from(np.random.default_rng(0).normal(size=[12, 4]).astype(np.float32))
    assert np.all(np.isfinite(small.item_tables()["mm"]))


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


def test_unknown_items_keep_to_their_own_neighbourhood():
    """The targets of content, against their equation item by item; the last two are cold."""
    generator = np.random.default_rng(0)
    vectors, known = generator.normal(size=[6, 4]), generator.normal(size=[8, 5])
    known[[2, 7]] = 0.0
    counts = np.array([90, 5, 4, 3, 2, 1, 0, 0])
    wanted, found = wanted_of_content(vectors.astype(np.float32), counts, known)
    there = turned_towards(known, np.pad(vectors, [[0, 2], [0, 0]]), np.minimum(counts, 50))
    for row, count in enumerate(np.minimum(counts, 50)):
        prior = 0.0 if row in (2, 7) else TRANSFER_PRIOR
        assert found[row] == pytest.approx(count + prior)
        if count + prior:
            own = vectors[row] if row < 6 else np.zeros(4)
            expected = (count * own + prior * there[row]) / (count + prior)
            np.testing.assert_allclose(wanted[row], expected, atol=1e-5)
    alone, weights = wanted_of_content(vectors, counts)
    np.testing.assert_array_equal(alone[:6], vectors)
    np.testing.assert_array_equal(weights, np.minimum(counts, 50))


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
    with pytest.raises(ValidationError, match="starts at random uses nothing"):
        TrainingConfig(warm_start="big/1", item_initialisation="random")
