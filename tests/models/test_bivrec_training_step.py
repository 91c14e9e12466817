"""The objective and a training step of the whole model."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bivrec_tf.config import LossConfig, TrainingConfig
from bivrec_tf.training import make_optimizer


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
def test_the_task_loss_is_the_cross_entropy_of_serving_scores_after_every_prefix(
    make_model, batch, readout
):
    """What training sees at a position is what serving sees after the same history."""
    loss = no_cross_view(mm_weight=0.7, fusion_weight=0.3)
    model = make_model(loss, readout=readout, score_temperature=0.8)
    total, found = objective(model, batch)
    examples = training_examples(batch)
    assert len(examples) == 3 + 4 + 3
    histories = np.zeros([len(examples), 6], np.int32)
    for row, (_, history, _) in enumerate(examples):
        histories[row, 6 - len(history) :] = history
    interests, tables = model(tf.constant(histories)), model.item_tables()
    # Cold items are no negatives: they have no id row.
    scored = {
        view: np.einsum("nkd,vd->nkv", interests[view], tables[view][1:13]).astype(float)
        for view in ("id", "mm")
    }
    # Interests of two views that are tied are one interest, whose score is their mean.
    scored["fusion"] = 0.5 * (scored["id"] + scored["mm"])
    expected = {}
    for view, logits in scored.items():
        smooth = np.log(np.exp(logits).sum(axis=1))
        scores = logits.max(axis=1) if readout == "max" else smooth
        normaliser = np.log(np.exp(scores).sum(axis=1))
        targets = [target - 1 for _, _, target in examples]
        expected[view] = np.mean(normaliser - scores[np.arange(len(targets)), targets])
        assert found[f"{view}_loss"] == pytest.approx(expected[view], rel=1e-4)
    weighted = expected["id"] + 0.7 * expected["mm"] + 0.3 * expected["fusion"]
    assert total == pytest.approx(weighted, rel=1e-4)


def test_a_common_task_has_the_gradients_of_a_softmax_of_its_own(make_model, batch):
    """As compiled in training, through towers and tables, and with the weights of the losses."""
    model = make_model(LossConfig(mm_weight=0.5, fusion_weight=0.7), num_interests=3)
    model.compile(optimizer=make_optimizer(TrainingConfig()))

    def gradients():
        with tf.GradientTape() as tape:
            value = model.compute_loss(batch, training=False)
        return value, tape.gradient(value, model.trainable_variables)

    fused, of_fused = tf.function(gradients)()
    model.task_loss._fused_softmax = None
    three, of_three = tf.function(gradients)()
    assert float(fused) == pytest.approx(float(three), rel=1e-6)
    for variable, ours, expected in zip(model.trainable_variables, of_fused, of_three, strict=True):
        ours, expected = tf.convert_to_tensor(ours), tf.convert_to_tensor(expected)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6, err_msg=variable.name)


@pytest.mark.parametrize(
    ("softmax", "views", "interests"),
    [
        *itertools.product(["full", "sampled"], [("id", "mm"), ("id",), ("mm",)], [3]),
        ("full", ("id", "mm"), 1),
    ],
)
def test_every_trainable_variable_receives_a_gradient(make_model, batch, softmax, views, interests):
    loss = LossConfig(softmax=softmax, sampled_negatives=30, cross_view_warmup_steps=10)
    model = make_model(loss, views=views, scales=(1, 2), dropout=0.1, num_interests=interests)
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


def test_a_training_step_changes_every_trainable_variable(make_model, batch):
    model = make_model(scales=(1, 2))
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


def test_float16_knows_no_nan_even_in_rows_of_padding_alone(make_model, batch):
    padded = {
        "sequence": tf.concat([batch["sequence"], tf.zeros([2, 7], tf.int32)], axis=0),
        "is_target": tf.concat([batch["is_target"], tf.zeros([2, 7], tf.bool)], axis=0),
        "user": tf.concat([batch["user"], [8, 9]], axis=0),
    }
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make_model()
        model.compile(optimizer=make_optimizer(TrainingConfig(precision="mixed_float16")))
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


def test_windows_of_one_user_are_no_negatives_of_one_another(make_model, batch):
    model = make_model()
    two = {name: values[:2] for name, values in batch.items()}
    _, of_two_users = objective(model, two)
    _, of_one_user = objective(model, {**two, "user": tf.constant([5, 5], tf.int64)})
    assert of_two_users["semantic_loss"] > 0.01
    assert of_one_user["semantic_loss"] == pytest.approx(0.0, abs=1e-6)


def test_the_semantic_loss_takes_one_representation_of_every_window(make_model, batch):
    """That of its last position, whatever was drawn."""
    model = make_model(seed=3)
    _, all_positions = objective(model, batch)
    found = model.interests(batch["sequence"][:, :-1])
    expected = model._semantic_similarity(
        *(found[view].vectors for view in ("id", "mm")), batch["user"]
    )
    assert all_positions["semantic_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_cross_view_losses_warm_up_with_the_steps(make_model, batch):
    loss = LossConfig(
        mm_weight=0, balance_weight=0, cross_view_warmup_steps=4, semantic_weight=2,
        allocation_weight=3,
    )  # fmt: skip
    model = make_model(loss)
    model.compile(optimizer=tf_keras.optimizers.SGD(0.0))
    for step in (0, 1, 3, 5):
        model.optimizer.iterations.assign(step)
        total, found = objective(model, batch)
        cross_view = 2 * found["semantic_loss"] + 3 * found["allocation_loss"]
        share = min((step + 1) / 4, 1)
        assert total == pytest.approx(found["id_loss"] + share * cross_view, rel=1e-4)


def test_a_batch_without_any_target_trains_nothing_and_breaks_nothing(make_model):
    model = make_model()
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


def test_the_loss_is_that_of_the_drawn_positions_alone(make_model, batch):
    """Two positions of a window with two targets are all of them."""
    two = {**batch, "is_target": batch["is_target"] & (tf.range(7) >= 5)}
    drawn, everything = make_model(positions=2), make_model()
    assert objective(drawn, two)[0] == pytest.approx(objective(everything, two)[0], rel=1e-5)
    one = make_model(positions=1)
    tf.random.set_seed(1)
    losses = {round(objective(one, two)[1]["id_loss"], 5) for _ in range(20)}
    assert len(losses) > 1


def test_the_objective_of_validation_is_free_of_noise(make_model, batch):
    model = make_model(dropout=0.5)
    assert objective(model, batch) == objective(model, batch)
    assert objective(model, batch, training=True) != objective(model, batch, training=True)
