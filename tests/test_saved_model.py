"""An exported model read back: the same answers, new items, retired ones, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig
from bivrec_tf.errors import ConfigError, DataError
from bivrec_tf.export import DESCRIPTION_FILE, export
from bivrec_tf.models import BiVRec
from bivrec_tf.precision import set_policy
from bivrec_tf.saved_model import read_saved_model, restore
from bivrec_tf.training import in_float32

TRAINED = [f"item {n}" for n in range(20)]
HISTORY = ["item 3", "cold", "item 7", "item 1"]


def features(names, seed=0):
    """Content that depends on the item's name alone."""
    return [
        ItemFeatures(
            name,
            {
                "text": np.random.default_rng([seed, *name.encode()]).normal(size=6),
                "image": np.random.default_rng([seed, 1, *name.encode()]).normal(size=4),
            },
        )
        for name in names
    ]


def make_model(views=("id", "mm"), **config):
    tf_keras.utils.set_random_seed(5)
    # The last two items were in the log and never in the item table.
    items = features([*TRAINED[:18], "cold"]) if "mm" in views else ()
    catalogue = ItemCatalogue.build(TRAINED, range(40, 20, -1), items)
    settings = {"dimension": 8, "max_history": 6, "num_interests": 3, "views": views, **config}
    model = BiVRec(ModelConfig(**settings), catalogue)
    model.build_variables()
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.normal(variable.shape) * 0.3)
    model.id_weight.assign(0.6)
    model.cold_offset.assign(-0.25)
    model.popularity_weight.assign(-0.3)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "1"
    export(make_model(), folder, encoders={"text": {"encoder": "e", "fingerprint": "f"}})
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return read_saved_model(folder)


def scores(model, history=HISTORY):
    """Score of every item that can be recommended, by its id, as the exported graph scores."""
    rows = tf.constant([model.catalogue.rows(history)])
    result = model.build_index().search(model(rows), k=model.num_rows)
    return {
        model.catalogue.item_ids[row]: float(score)
        for row, score in zip(result.rows[0].numpy(), result.scores[0].numpy(), strict=True)
        if row
    }


def assert_same_scores(found, expected, names):
    assert set(names) <= set(found)
    for name in names:
        assert found[name] == pytest.approx(expected[name], abs=1e-6, rel=1e-6), name


def test_the_same_items_give_the_same_model(saved):
    model = restore(saved, features([*TRAINED[:18], "cold"]))
    original = make_model()
    assert model.catalogue.item_ids == original.catalogue.item_ids
    assert not model.catalogue.retired.any()
    assert_same_scores(scores(model), scores(original), [*TRAINED, "cold"])


def test_new_items_are_scored_by_their_content_and_leave_old_scores_alone(saved):
    new = features(["a new one"])[0]
    twin = ItemFeatures("twin of cold", features(["cold"])[0].features)
    model = restore(saved, [*features([*TRAINED[:18], "cold"]), new, twin])
    found = scores(model)
    assert_same_scores(found, scores(make_model()), [*TRAINED, "cold"])
    assert found["twin of cold"] == pytest.approx(found["cold"], abs=1e-6)
    assert np.isfinite(found["a new one"]) and found["a new one"] != found["cold"]


def test_retired_items_count_in_histories_and_are_never_recommended(saved):
    gone = {"item 3", "cold"}
    kept = [name for name in [*TRAINED[:18], "cold"] if name not in gone]
    model = restore(saved, features(kept))
    found = scores(model)
    assert not gone & set(found)
    # The items that the table never listed are no less there than before.
    assert_same_scores(found, scores(make_model()), [*kept, *TRAINED[18:]])
    rows = tf.constant([model.catalogue.rows(HISTORY)])
    target = tf.constant([model.catalogue.rows(["item 3"])])
    assert int(model.build_index().ranks(model(rows), target)[0, 0]) == tf.int32.max


def test_a_retired_item_that_comes_back_is_recommended_again(saved, tmp_path):
    without = restore(saved, features(TRAINED[:18]))
    export(without, tmp_path / "2")
    again = restore(read_saved_model(tmp_path / "2"), features([*TRAINED[:18], "cold"]))
    assert_same_scores(scores(again), scores(make_model()), [*TRAINED, "cold"])


def test_changed_content_changes_that_item_alone(saved):
    changed = [*features([*TRAINED[:17], "cold"]), *features(["item 17"], seed=1)]
    found, before = scores(restore(saved, changed)), scores(make_model())
    assert_same_scores(found, before, [*TRAINED[:17], *TRAINED[18:], "cold"])
    assert abs(found["item 17"] - before["item 17"]) > 1e-3


def test_a_modality_that_vanishes_is_missing_everywhere(saved):
    without = [ItemFeatures(i.item_id, {"text": i.features["text"]}) for i in features(["item 0"])]
    model = restore(saved, without)
    assert set(model.catalogue.modalities) == {"text", "image"}
    assert not model.catalogue.presence["image"].any()


def test_other_features_than_the_models_are_refused(saved):
    with pytest.raises(DataError, match=r"'item 0': feature 'text' of 5 values.*train a new model"):
        restore(saved, [ItemFeatures("item 0", {"text": np.zeros(5)})])


def test_a_modality_that_training_did_not_know_is_left_out(saved):
    items = features([*TRAINED[:18], "cold"])
    heard = [ItemFeatures(i.item_id, {**i.features, "sound": np.zeros(3)}) for i in items]
    assert_same_scores(scores(restore(saved, heard)), scores(make_model()), [*TRAINED, "cold"])


def test_a_model_without_a_multimodal_view_cannot_know_new_items(tmp_path):
    export(make_model(views=("id",)), tmp_path / "1")
    with pytest.raises(ConfigError, match="no multimodal view"):
        restore(read_saved_model(tmp_path / "1"), features(["item 0"]))


def test_what_is_no_exported_model_is_named(tmp_path, folder):
    with pytest.raises(ConfigError, match="not a model exported by BiVRec-TF"):
        read_saved_model(tmp_path)
    with pytest.raises(ConfigError, match="Name the version folder"):
        read_saved_model(folder.parent)


def test_a_damaged_or_older_model_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "1")
    description = json.loads((folder / DESCRIPTION_FILE).read_text())
    del description["modalities"]
    (tmp_path / "1" / DESCRIPTION_FILE).write_text(json.dumps(description))
    with pytest.raises(ConfigError, match="exported by another version of BiVRec-TF, or damaged"):
        read_saved_model(tmp_path / "1")


def test_weights_of_another_version_are_named(saved):
    gone = next(iter(saved.weights))
    more = {**saved.weights, "some/old/kernel": np.zeros([8, 8], np.float32)}
    fewer = {name: value for name, value in saved.weights.items() if name != gone}
    for weights, name in ((more, "some/old/kernel"), (fewer, gone)):
        other = dataclasses.replace(saved, weights=weights)
        with pytest.raises(ConfigError, match=f"weights are not those.*{name}.*train a new model"):
            restore(other, features(["item 0"]))


def test_a_model_from_before_its_multimodal_view_read_ids_still_scores_as_it_did(tmp_path):
    model = make_model(multimodal_history="content")
    export(model, tmp_path / "1")
    file = tmp_path / "1" / DESCRIPTION_FILE
    description = json.loads(file.read_text())
    del description["model"]["multimodal_history"]
    file.write_text(json.dumps(description))
    again = restore(read_saved_model(tmp_path / "1"), features([*TRAINED[:18], "cold"]))
    assert_same_scores(scores(again), scores(model), [*TRAINED, "cold"])


def test_a_model_from_before_popularity_had_a_weight_still_scores_as_it_did(tmp_path, monkeypatch):
    model = make_model()
    model.popularity_weight.assign(0.0)
    stored = model.named_variables()
    del stored["popularity_weight"]
    monkeypatch.setattr(model, "named_variables", lambda: stored)
    export(model, tmp_path / "1")
    saved = read_saved_model(tmp_path / "1")
    again = restore(saved, features([*TRAINED[:18], "cold"]))
    assert_same_scores(scores(again), scores(model), [*TRAINED, "cold"])


def test_the_description_names_encoders(folder):
    description = json.loads((folder / DESCRIPTION_FILE).read_text())
    assert description["modalities"] == {
        "image": {"dimension": 4},
        "text": {"dimension": 6, "encoder": "e", "fingerprint": "f"},
    }


@pytest.mark.parametrize("policy", ["bfloat16_products", "mixed_bfloat16", "mixed_float16"])
def test_a_model_trained_in_half_precision_is_exported_so_that_it_can_be_refreshed(
    policy, tmp_path
):
    """Half precision rounds otherwise in every shape of a product: refresh compares to 1e-5."""
    set_policy(policy)
    try:
        trained = make_model()
        assert tf_keras.mixed_precision.global_policy().name == policy
        rounded = scores(trained)
        model = in_float32(trained)
    finally:
        set_policy("float32")
    found = scores(model)
    assert float(model.id_weight) == pytest.approx(0.6)
    for name, score in rounded.items():
        assert found[name] == pytest.approx(score, abs=0.2)
    export(model, tmp_path / "1")
    again = restore(read_saved_model(tmp_path / "1"), features([*TRAINED[:18], "cold"]))
    assert_same_scores(scores(again), found, [*TRAINED, "cold"])
    # A model that came back is not started anew by further training.
    again.start_from(np.ones([len(TRAINED), 8], np.float32))
    assert_same_scores(scores(again), found, [*TRAINED, "cold"])
