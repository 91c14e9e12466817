"""The refresh's own guard: a model that scores otherwise must not pass for the served one."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig
from bivrec_tf.errors import DataError
from bivrec_tf.export import CONTENT_STATISTICS_FILE, export
from bivrec_tf.models import BiVRec
from components.idempotent_pusher.model_fingerprint import fingerprint
from components.model_refresher.refresh_model import (
    SAME_CONTENT,
    RefreshReport,
    compare_scores,
    refresh_model,
)

NAMES = [f"item {n}" for n in range(12)]
EXACT = dict.fromkeys(NAMES, SAME_CONTENT)
ENCODER = {"text": {"encoder": "e", "fingerprint": "f" * 20}}


def content(names, seed=0, noise=0.0):
    generators = [np.random.default_rng([seed, *name.encode()]) for name in names]
    return [
        ItemFeatures(name, {"text": (generator.normal(size=5) + noise).astype(np.float32)})
        for name, generator in zip(names, generators, strict=True)
    ]


def exported(folder, seed, moved_by=0.0):
    tf_keras.utils.set_random_seed(seed)
    catalogue = ItemCatalogue.build(NAMES, range(12, 0, -1), content(NAMES))
    # One scale and no block: what is guarded does not depend on depth, the time of an export does.
    config = ModelConfig(dimension=8, max_history=5, num_interests=2, scales=(1,), context_blocks=0)
    model = BiVRec(config, catalogue)
    model.build_variables()
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.normal(variable.shape) * 0.3)
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.normal(variable.shape) * moved_by)
    export(model, folder, encoders=ENCODER)
    return str(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("served") / "1", seed=1)


def test_a_model_of_other_weights_is_found_out(served, tmp_path):
    other = exported(tmp_path / "1", seed=2)
    report = RefreshReport()
    compare_scores(served, other, [NAMES[:3], NAMES[4:9]], EXACT, report)
    assert report.scores_compared > 0 and report.largest_difference > 1e-3
    assert 0 < len(report.problems) <= 5
    assert "whose content did not change" in report.problems[0]


@pytest.mark.parametrize(("moved_by", "is_same"), [(3e-7, True), (1e-4, False)])
def test_the_last_bits_may_differ_and_no_more(served, moved_by, is_same, tmp_path):
    """Another processor, or a row more in a product, rounds otherwise; training moves weights."""
    other = exported(tmp_path / "1", seed=1, moved_by=moved_by)
    report = RefreshReport()
    compare_scores(served, other, [NAMES[:3], NAMES[4:9]], EXACT, report)
    assert report.scores_compared > 0 and report.largest_difference > 0
    assert (report.problems == []) == is_same


def test_a_missing_item_is_found_out(served, tmp_path):
    """An unchanged item that the new model does not return at all."""
    report, _ = refresh_model(served, content(NAMES[1:]), ENCODER, str(tmp_path / "1"))
    assert report.retired == 1 and not report.problems
    blind = RefreshReport()
    compare_scores(served, str(tmp_path / "1"), [NAMES[5:7]], EXACT, blind)
    assert any(repr(NAMES[0]) in problem for problem in blind.problems)


def test_new_items_are_ranked_and_their_answers_kept_for_the_server(served, tmp_path):
    items = [*content(NAMES), *content(["new a", "new b"]), ItemFeatures("bare", {})]
    report, answers = refresh_model(served, items, ENCODER, str(tmp_path / "1"))
    assert (report.items, report.new, report.new_without_content) == (15, 3, 1)
    assert report.largest_difference <= SAME_CONTENT.score and report.problems == []
    assert 1 <= report.median_rank_of_new <= 15
    asked = [answer for answer in answers if not answer.filter_seen]
    assert {answer.history[0] for answer in asked} == {"new a", "new b"}
    assert all(answer.history[0] in answer.item_ids for answer in asked)


def test_a_retired_item_may_come_back_with_other_content(served, tmp_path):
    refresh_model(served, content(NAMES[1:]), ENCODER, str(tmp_path / "2"))
    items = [*content(NAMES[:1], seed=1), *content(NAMES[1:])]
    report, _ = refresh_model(str(tmp_path / "2"), items, ENCODER, str(tmp_path / "3"))
    assert (report.returned, report.changed, report.problems) == (1, 0, [])


def test_a_table_of_other_items_is_not_blessed(served, tmp_path):
    report, _ = refresh_model(served, content(["x", "y"]), ENCODER, str(tmp_path / "1"))
    assert report.retired == 12
    assert "retires 12 of 12 listed items, more than 20%" in report.problems[0]
    assert any("no item kept its content" in problem for problem in report.problems)
    some, _ = refresh_model(served, content(NAMES[:6]), ENCODER, str(tmp_path / "2"))
    assert "retires 6 of 12" in some.problems[0]
    allowed, _ = refresh_model(served, content(NAMES[:6]), ENCODER, str(tmp_path / "3"), 1.0)
    assert allowed.problems == []


def test_content_that_was_only_encoded_again_did_not_change(served, tmp_path):
    """Another batch, another machine: the last bits differ."""
    report, answers = refresh_model(
        served, content(NAMES, noise=1e-6), ENCODER, str(tmp_path / "1")
    )
    assert (report.reencoded, report.changed, report.problems) == (12, 0, [])
    assert report.scores_compared > 0 and report.vectors_compared == 12 and answers


def test_drift_is_measured_from_training_however_often_a_model_is_refreshed(served, tmp_path):
    before = (Path(served) / CONTENT_STATISTICS_FILE).read_text()
    refresh_model(served, [*content(NAMES), *content(["new"])], ENCODER, str(tmp_path / "2"))
    assert (tmp_path / "2" / CONTENT_STATISTICS_FILE).read_text() == before


def test_a_refresh_that_changes_nothing_gives_the_very_same_files(served, tmp_path):
    report, answers = refresh_model(served, content(NAMES), ENCODER, str(tmp_path / "1"))
    assert not report.is_new and answers and not report.problems
    assert fingerprint(str(tmp_path / "1")) == fingerprint(served)


def test_vectors_of_another_encoder_are_refused(served, tmp_path):
    other = {"text": {"encoder": "other", "fingerprint": "0" * 20}}
    with pytest.raises(DataError, match="these are of 'other'"):
        refresh_model(served, content(NAMES), other, str(tmp_path / "1"))
    with pytest.raises(DataError, match="these are of none"):
        refresh_model(served, content(NAMES), {}, str(tmp_path / "1"))
