"""Transfer between catalogues: the content part moves over, whole or in part; ids never do."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig
from bivrec_tf.errors import ConfigError
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
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


def test_the_same_content_means_the_same_after_a_warm_start(big, saved):
    """Two items that both shops sell: their vectors, and the interests of a history of them."""
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    before = small.item_tables()["mm"]
    warm_start(small, saved, BOTH)
    rows = tf.constant([[1, 2, 3]])
    # Whitened again for every catalogue: equal but for rounding.
    np.testing.assert_allclose(
        small.item_tables()["mm"][:13], big.item_tables()["mm"][:13], rtol=1e-5, atol=1e-6
    )
    assert np.abs(small.item_tables()["mm"] - before).max() > 0.1
    np.testing.assert_allclose(
        small.interests(rows)["mm"].vectors, big.interests(rows)["mm"].vectors, rtol=1e-4, atol=1e-5
    )


def test_training_does_not_start_anew_what_was_taken_over(saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    warm_start(small, saved, BOTH)
    taken = small.item_tables()["mm"]
    vectors = np.random.default_rng(0).normal(size=[12, 8]).astype(np.float32)
    small.start_from(vectors)
    np.testing.assert_array_equal(small.item_tables()["mm"], taken)
    # Turned towards what the other model's view makes of the items: what they say of one another
    # stays, and the two views start in one space.
    turned = small.item_tables()["id"][1:13].numpy()
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, rtol=1e-3, atol=1e-4)
    content = taken[1:13].numpy()
    assert (turned * content).sum() > (vectors * content).sum() + 1.0


def test_a_version_that_did_not_whiten_gives_no_projection(saved):
    older = {name: w for name, w in saved.weights.items() if name != "whitening_text"}
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    report = warm_start(small, replace(saved, weights=older), BOTH)
    assert "did not whiten" in report.not_loaded["text"]
    assert not any(name.endswith("_text") or "_text/" in name for name in report.loaded)
    assert "content_projection/project_image/kernel" in report.loaded


def test_nothing_of_the_id_view_leaks_across(saved):
    small = make_model(SMALL, [("text", 6), ("image", 4)], seed=2)
    before = weights(small)
    report = warm_start(small, saved, BOTH)
    after = weights(small)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed <= set(report.loaded)
    ours = ("id_tower/", "embeddings", "id_weight", "cold_offset", "semantic_similarity/")
    assert not [name for name in report.loaded if name.startswith(ours) or name == "embeddings"]
    assert [name for name in before if name.startswith("id_tower/")]
    np.testing.assert_array_equal(small.item_tables()["id"][1:], before["embeddings"])


def test_every_modality_stands_for_itself(saved):
    """The small shop has sounds instead of images: texts mean what they meant, sounds are new."""
    small = make_model(SMALL, [("text", 6), ("sound", 5)], seed=2)
    before = weights(small)
    report = warm_start(small, saved, {"text": TEXT})
    after = weights(small)
    for name in ("mean_text", "missing_text", "content_projection/project_text/kernel"):
        np.testing.assert_array_equal(after[name], saved.weights[name])
    mixing = "content_projection/output/kernel"
    # In order of names: image, text there; sound, text here.
    np.testing.assert_array_equal(after[mixing][8:], saved.weights[mixing][8:])
    np.testing.assert_array_equal(after[mixing][:8], before[mixing][:8])
    np.testing.assert_array_equal(
        after["content_projection/project_sound/kernel"],
        before["content_projection/project_sound/kernel"],
    )
    assert report.not_loaded["sound"] == "the other model has no such modality"
    assert report.not_loaded["image"] == "no item here has this modality"


def test_vectors_of_another_encoder_or_length_mean_nothing_here(saved):
    small = make_model(SMALL, [("text", 6), ("image", 3)], seed=2)
    before = weights(small)
    report = warm_start(small, saved, {"text": {"encoder": "other", "fingerprint": "xyz"}})
    assert report.not_loaded["text"] == "made by another encoder there (minilm)"
    assert report.not_loaded["image"] == "4 values there, 3 here"
    after = weights(small)
    for name in ("content_projection/project_text/kernel", "content_projection/output/kernel"):
        np.testing.assert_array_equal(after[name], before[name])
    assert any(name.startswith("mm_tower/") for name in report.loaded)


def test_vectors_that_nobody_names_are_not_taken_for_the_same(big, tmp_path):
    """Both shops computed a `text` of six numbers; each by its own means, for all we know."""
    export(big, tmp_path / "1")
    report = warm_start(
        make_model(SMALL, [("text", 6)], seed=2), read_saved_model(tmp_path / "1"), {}
    )
    assert report.not_loaded["text"] == "made by another encoder there (not named)"


def test_what_was_loaded_is_logged(saved, caplog):
    small = make_model(SMALL, [("text", 6)], seed=2, num_interests=2)
    with caplog.at_level(logging.INFO, logger="bivrec_tf.transfer"):
        report = warm_start(small, saved, {"text": TEXT})
    (line,) = caplog.messages
    assert f"{len(report.loaded)} weights loaded, of the tower and of modalities text" in line
    assert "offset (shape [3, 8] there, [2, 8] here)" in line
    assert saved.directory in line


def test_what_cannot_transfer_is_an_error(saved):
    with pytest.raises(ConfigError, match="Use its model.dimension"):
        warm_start(make_model(SMALL, [("text", 6)], seed=2, dimension=4), saved)
    with pytest.raises(ConfigError, match="the new model has no multimodal view"):
        warm_start(make_model(SMALL, [], seed=2, views=("id",)), saved)
