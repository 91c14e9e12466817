"""The objective and a training step of the whole model."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.config import LossConfig, TrainingConfig
from bivrec_tf.training import make_optimizer

FORMS = pytest.mark.parametrize("form", ["causal", "patch"])


def objective(model, batch, training=False):
    """The loss of a batch, and every diagnostic that it leaves."""
    model.reset_metrics()
    loss = float(model.compute_loss(batch, training=training))
    return loss, {metric.name: float(metric.result()) for metric in model.metrics}


def training_examples(batch):
    """(row of the batch, history, target) of every target that has an item before it."""
    examples = []
    rows, all_flags = batch["sequence"].numpy(), batch["is_target"].numpy()
    for n, (row, flags) in enumerate(zip(rows, all_flags, strict=True)):
        for t in range(1, len(row)):
            if flags[t] and row[t] > 0 and row[t - 1] > 0:
                examples.append((n, row[:t], row[t]))
    return examples


def no_cross_view(**changes):
    return LossConfig(semantic_weight=0, allocation_weight=0, balance_weight=0, **changes)


@pytest.mark.parametrize("readout", ["max", "logsumexp"])
@FORMS
def test_the_task_loss_is_the_cross_entropy_of_serving_scores_after_every_prefix(
    make_model, batch, form, readout
):
    """What training sees at a position is what serving sees after the same history."""
    loss = no_cross_view(mm_weight=0.7)
    model = make_model(loss, form=form, readout=readout, score_temperature=0.8)
    total, found = objective(model, batch)
    examples = training_examples(batch)
    assert len(examples) == 3 + 4 + 3
    histories = np.zeros([len(examples), 6], np.int32)
    for row, (_, history, _) in enumerate(examples):
        histories[row, 6 - len(history) :] = history
    interests, tables = model(tf.constant(histories)), model.item_tables()
    expected = {}
    for view in ("id", "mm"):
        # Cold items are no negatives: they have no id row.
        logits = np.einsum("nkd,vd->nkv", interests[view], tables[view][1:13]).astype(float)
        smooth = np.log(np.exp(logits).sum(axis=1))
        scores = logits.max(axis=1) if readout == "max" else smooth
        normaliser = np.log(np.exp(scores).sum(axis=1))
        targets = [target - 1 for _, _, target in examples]
        expected[view] = np.mean(normaliser - scores[np.arange(len(targets)), targets])
        assert found[f"{view}_loss"] == pytest.approx(expected[view], rel=1e-4)
    assert total == pytest.approx(expected["id"] + 0.7 * expected["mm"], rel=1e-4)


@FORMS
@pytest.mark.parametrize(
    ("softmax", "views"), itertools.product(["full", "sampled"], [("id", "mm"), ("id",), ("mm",)])
)
def test_every_trainable_variable_receives_a_gradient(make_model, batch, form, softmax, views):
    loss = LossConfig(softmax=softmax, sampled_negatives=30, cross_view_warmup_steps=10)
    model = make_model(loss, form=form, views=views, scales=(1, 2), dropout=0.1)
    model.compile(optimizer=make_optimizer(TrainingConfig()))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = model.compute_loss(batch, training=True)
        return tape.gradient(value, model.trainable_variables)

    found = gradients()
    assert len(found) == len(model.trainable_variables) > 10
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        assert gradient is not None, variable.name
        dense = tf.convert_to_tensor(gradient).numpy()
        assert np.all(np.isfinite(dense)), variable.name
        assert np.any(dense), variable.name


@FORMS
def test_a_training_step_changes_every_trainable_variable(make_model, batch, form):
    model = make_model(form=form, scales=(1, 2))
    model.compile(optimizer=make_optimizer(TrainingConfig(learning_rate=0.01)))
    before = [variable.numpy() for variable in model.trainable_variables]
    logs = model.train_step(batch)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.any(old != variable.numpy()), variable.name
    assert set(logs) == {
        *("loss", "id_loss", "mm_loss", "semantic_loss", "allocation_loss"),
        *("id_interests_in_use", "mm_interests_in_use"),
        *("id_interest_cosine", "mm_interest_cosine"),
    }
    assert 1.0 <= logs["id_interests_in_use"] <= 3.001
    assert -1.0 <= logs["mm_interest_cosine"] <= 1.0


@FORMS
def test_float16_knows_no_nan_even_in_rows_of_padding_alone(make_model, batch, form):
    padded = {
        "sequence": tf.concat([batch["sequence"], tf.zeros([2, 7], tf.int32)], axis=0),
        "is_target": tf.concat([batch["is_target"], tf.zeros([2, 7], tf.bool)], axis=0),
        "user": tf.concat([batch["user"], [8, 9]], axis=0),
    }
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make_model(form=form)
        model.compile(optimizer=make_optimizer(TrainingConfig(mixed_precision=True)))
        found = model.interests(tf.constant([[0, 0, 0], [0, 1, 2]]))
        assert model._towers["id"].compute_dtype == "float16"
        for view in found.values():
            assert np.all(np.isfinite(view.vectors)) and np.all(np.isfinite(view.allocation))
        with tf.GradientTape() as tape:
            loss = model.compute_loss(padded, training=True)
        assert np.isfinite(loss)
        for gradient in tape.gradient(loss, model.trainable_variables):
            assert np.all(np.isfinite(tf.convert_to_tensor(gradient)))
        for _ in range(2):
            logs = model.train_step(padded)
        assert all(np.isfinite(value) for value in logs.values())
        assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


@FORMS
def test_windows_of_one_user_are_no_negatives_of_one_another(make_model, batch, form):
    model = make_model(form=form)
    two = {name: values[:2] for name, values in batch.items()}
    _, of_two_users = objective(model, two)
    _, of_one_user = objective(model, {**two, "user": tf.constant([5, 5], tf.int64)})
    assert of_two_users["semantic_loss"] > 0.01
    assert of_one_user["semantic_loss"] == pytest.approx(0.0, abs=1e-6)


@FORMS
def test_the_semantic_loss_takes_one_representation_of_every_window(make_model, batch, form):
    """Of its last position with a target: other positions are cut off and change nothing."""
    model = make_model(form=form, seed=3)
    _, all_positions = objective(model, batch)
    last_only = {**batch, "is_target": batch["is_target"] & (tf.range(7) == 6)}
    _, one_position = objective(model, last_only)
    if form == "patch":  # A window without a drawn position has none.
        assert one_position["semantic_loss"] == pytest.approx(all_positions["semantic_loss"])
    found = model.interests(batch["sequence"][:, :-1])
    rows = tf.constant([0, 1, 3] if form == "patch" else [0, 1, 2, 3])
    expected = model._semantic_similarity(
        *(tf.gather(found[view].vectors, rows) for view in ("id", "mm")),
        tf.gather(batch["user"], rows),
    )
    assert all_positions["semantic_loss"] == pytest.approx(float(expected), rel=1e-4)


@FORMS
def test_cross_view_losses_warm_up_with_the_steps(make_model, batch, form):
    loss = LossConfig(
        mm_weight=0, balance_weight=0, cross_view_warmup_steps=4, semantic_weight=2,
        allocation_weight=3,
    )  # fmt: skip
    model = make_model(loss, form=form)
    model.compile(optimizer=tf_keras.optimizers.SGD(0.0))
    for step in (0, 1, 3, 5):
        model.optimizer.iterations.assign(step)
        total, found = objective(model, batch)
        cross_view = 2 * found["semantic_loss"] + 3 * found["allocation_loss"]
        share = min((step + 1) / 4, 1)
        assert total == pytest.approx(found["id_loss"] + share * cross_view, rel=1e-4)


@FORMS
def test_a_batch_without_any_target_trains_nothing_and_breaks_nothing(make_model, form):
    model = make_model(form=form)
    empty = {
        "sequence": tf.constant([[0, 0, 0, 0, 0, 0, 4], [0, 0, 0, 0, 0, 0, 0]]),
        "is_target": tf.constant([[False] * 6 + [True], [False] * 7]),
        "user": tf.constant([1, 2], tf.int64),
    }
    with tf.GradientTape() as tape:
        loss = model.compute_loss(empty, training=True)
    assert np.isfinite(loss)
    for gradient in tape.gradient(loss, model.trainable_variables):
        if gradient is not None:
            assert np.all(np.isfinite(tf.convert_to_tensor(gradient)))
    assert all(np.isfinite(float(metric.result())) for metric in model.metrics)


@FORMS
def test_drawn_positions_are_as_many_as_asked_for(make_model, batch, form):
    model = make_model(form=form, positions=2)
    history, labels = batch["sequence"][:, :-1], batch["sequence"][:, 1:]
    wanted = batch["is_target"][:, 1:] & (history > 0) & (labels > 0)
    drawn, histories, positions = model._runs(history, wanted)
    assert np.bincount(drawn.numpy() // 6, minlength=4).tolist() == [2, 2, 0, 2]
    if form == "causal":
        np.testing.assert_array_equal(histories, history)
        np.testing.assert_array_equal(positions, [*drawn.numpy(), 5, 11, 17, 23])
    else:
        for row, position in zip(histories.numpy(), drawn.numpy(), strict=True):
            n, t = divmod(int(position), 6)
            assert row.tolist() == [0] * (5 - t) + history.numpy()[n, : t + 1].tolist()
        assert positions is None


def test_the_objective_of_validation_is_free_of_noise(make_model, batch):
    model = make_model(dropout=0.5)
    assert objective(model, batch) == objective(model, batch)
    assert objective(model, batch, training=True) != objective(model, batch, training=True)
