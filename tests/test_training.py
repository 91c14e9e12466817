"""`fit` on data with a rule in it: learning, stopping, being killed, going on, and refusing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bivrec_tf  # noqa: F401  (before TensorFlow: this file also runs as a script)

# isort: split
import tensorflow as tf
import tf_keras

from bivrec_tf import data
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig, TrainingConfig
from bivrec_tf.errors import ConfigError, DataError
from bivrec_tf.evaluation import RankingEvaluator, popularity_ranks
from bivrec_tf.metrics import NDCG
from bivrec_tf.models import BiVRec
from bivrec_tf.training import TrainingError, fit, make_optimizer

ITEMS = 24
NAMES = [f"item {row}" for row in range(1, ITEMS + 1)]
CONFIG = TrainingConfig(
    epochs=12,
    batch_size=16,
    learning_rate=0.004,
    learning_rate_warmup_steps=0,
    learning_rate_decay="none",
    early_stopping_patience=12,
    # From neighbourhood the rule is known before the first step, and there is nothing to learn.
    item_initialisation="random",
)
# By hand, and not the code's list: a name that is forgotten there must be missed here.
_SPARED = (
    "bias",
    "gamma",
    "beta",
    "mean",
    "raw_scale",
    "raw_rate",
    "scale_weight",
    "share",
    "offset",
)


def chains(users, length, seed):
    """Users who walk through the items in order from anywhere: the next item is the item + 1."""
    starts = np.random.default_rng(seed).integers(0, ITEMS, size=users)
    return [[NAMES[(start + step) % ITEMS] for step in range(length)] for start in starts]


def make(features=(), **changes):
    """A model, its training windows and its validation batches."""
    tf_keras.utils.set_random_seed(0)
    catalogue = ItemCatalogue.build(NAMES, [9] * ITEMS, features)
    settings = {
        "views": ("id",),
        "dimension": 16,
        "num_interests": 2,
        "scales": (1, 2),
        "max_history": 6,
        "dropout": 0.0,
    }
    model = BiVRec(ModelConfig(**{**settings, **changes}), catalogue)
    lookup = data.ItemLookup(catalogue)
    windows = data.serialize_sequences([(f"u{n}", [], c) for n, c in enumerate(chains(80, 7, 0))])
    training = data.training_batches(data.windows_from_ids(windows, lookup), 6, 16, seed=0)
    held_out = data.serialize_sequences([("v", c[:-1], c[-1:]) for c in chains(40, 6, 1)])
    return model, training, data.evaluation_batches(held_out, lookup, 40)


def train(directory, config=CONFIG, callbacks=(), log_directory=None, resume=True, **changes):
    model, training, validation = make(**changes)
    result = fit(
        model, training, validation, config, directory, log_directory, resume, callbacks, verbose=0
    )
    return model, result


class Remember(tf_keras.callbacks.Callback):
    """Keeps the weights at the end of every epoch, and the state on disk then."""

    def __init__(self, directory=None):
        super().__init__()
        self.directory, self.weights, self.states = directory, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append([variable.numpy() for variable in self.model.trainable_variables])
        if self.directory is not None:
            self.states.append((self.directory / "state.json").read_text())


class Damage(tf_keras.callbacks.Callback):
    """Replaces the item table by noise before an epoch, so that no later one is better."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            table = self.model._item_embedding.embeddings
            table.assign(np.random.default_rng(0).normal(size=table.shape) * 3)


class Kill(tf_keras.callbacks.Callback):
    """Kills the process in the middle of an epoch, without a chance to tidy up."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.now = epoch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def assert_weights(model, expected):
    for variable, values in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_array_equal(variable, values, err_msg=variable.name)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A finished run with checkpoints and TensorBoard logs."""
    root = tmp_path_factory.mktemp("learned")
    model, result = train(root / "run", log_directory=root / "logs")
    return root, model, result


def test_a_rule_in_the_data_is_learned_far_beyond_popularity(learned):
    _, model, result = learned
    _, _, validation = make()
    popularity = NDCG(10)
    for batch in validation:
        counts = tf.constant(model.catalogue.counts)
        popularity.update_state(popularity_ranks(counts, batch["history"], batch["target"]))
    assert float(popularity.result()) < 0.5
    assert result.metrics["ndcg_at_10"] > 0.9
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert 0 < result.metrics["coverage_at_10"] <= 1


def test_the_history_tells_losses_diagnostics_and_validation_of_every_epoch(learned):
    _, _, result = learned
    assert len(result.history) == CONFIG.epochs
    for epoch in result.history:
        assert {
            *("loss", "id_loss", "id_interests_in_use", "id_interest_cosine"),
            *("val_ndcg_at_10", "val_recall_at_20", "val_hit_rate_at_50", "val_mrr_at_10"),
        } <= set(epoch)
    values = [epoch["val_ndcg_at_10"] for epoch in result.history]
    assert result.best_epoch == int(np.argmax(values))
    assert result.metrics["ndcg_at_10"] == pytest.approx(max(values), abs=1e-6)


def test_tensorboard_holds_the_loss_the_metric_and_the_interest_diagnostics(learned):
    root, _, result = learned
    found = {}
    for path in (root / "logs").rglob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                series = found.setdefault((path.parent.name, value.tag), [])
                series.append(float(tf.make_ndarray(value.tensor)))
    for where, tag, name in (
        ("train", "epoch_loss", "loss"),
        ("train", "epoch_id_interests_in_use", "id_interests_in_use"),
        ("train", "epoch_id_interest_cosine", "id_interest_cosine"),
        ("validation", "epoch_ndcg_at_10", "val_ndcg_at_10"),
    ):
        expected = [epoch[name] for epoch in result.history]
        np.testing.assert_allclose(found[where, tag], expected, rtol=1e-5)


def test_a_finished_run_is_not_trained_again(learned):
    root, model, result = learned
    again, found = train(root / "run")
    assert found.history == result.history
    assert found.metrics == pytest.approx(result.metrics)
    assert_weights(again, [variable.numpy() for variable in model.trainable_variables])


@pytest.mark.parametrize(
    ("config", "changes", "what"),
    [
        (CONFIG.model_copy(update={"learning_rate": 0.5}), {}, "configuration"),
        (CONFIG, {"num_interests": 3}, "configuration and weights"),
        (CONFIG, {"features": [ItemFeatures("cold", {"text": np.ones(2)})]}, "items"),
    ],
)
def test_a_directory_of_another_run_is_refused_with_what_to_do(learned, config, changes, what):
    directory = learned[0] / "run"
    with pytest.raises(ConfigError) as error:
        train(directory, config, **changes)
    assert str(error.value) == (
        f"{directory} holds checkpoints of a run with other {what}: "
        "use another directory, remove it, or pass resume=False"
    )


def test_a_directory_of_a_version_with_other_weights_is_refused(learned, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(learned[0] / "run", directory)
    file = directory / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "weights": "of another version"}))
    with pytest.raises(ConfigError, match="checkpoints of a run with other weights"):
        train(directory)


def test_more_epochs_and_patience_are_the_same_run(learned, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(learned[0] / "run", directory)
    longer = CONFIG.model_copy(update={"epochs": 13, "early_stopping_patience": 30})
    _, result = train(directory, longer)
    assert len(result.history) == 13
    assert result.history[:12] == learned[2].history


@pytest.mark.parametrize("keep", [True, False], ids=["with_directory", "in_memory"])
def test_early_stopping_ends_with_the_weights_of_the_best_epoch(tmp_path, keep):
    remember = Remember()
    config = CONFIG.model_copy(
        update={"epochs": 9, "early_stopping_patience": 2, "learning_rate": 0.005}
    )
    directory = tmp_path / "run" if keep else None
    model, result = train(directory, config, [remember, Damage(epoch=3)])
    values = [epoch["val_ndcg_at_10"] for epoch in result.history]
    assert result.best_epoch == int(np.argmax(values)) <= 2
    assert len(values) == result.best_epoch + 1 + 2
    assert_weights(model, remember.weights[result.best_epoch])
    assert np.any(remember.weights[-1][0] != remember.weights[result.best_epoch][0])


def test_a_killed_process_goes_on_from_its_last_epoch(tmp_path):
    directory = tmp_path / "run"
    script = subprocess.run(
        [sys.executable, __file__, str(directory)], capture_output=True, timeout=300
    )
    assert script.returncode == -signal.SIGKILL, script.stderr.decode()[-2000:]
    before = json.loads((directory / "state.json").read_text())
    assert len(before["history"]) == 2

    seen = Remember()
    model, result = train(directory, CONFIG.model_copy(update={"epochs": 5}), [seen])
    assert len(seen.weights) == 3
    assert len(result.history) == 5
    assert result.history[:2] == before["history"]
    # It went on with what was learned, and with the optimizer's state: five steps an epoch.
    assert result.history[2]["loss"] < before["history"][1]["loss"]
    assert int(model.optimizer.iterations) == 5 * (result.best_epoch + 1) > 10
    values = [epoch["val_ndcg_at_10"] for epoch in result.history]
    assert result.best_epoch == int(np.argmax(values))


def test_a_run_killed_between_its_checkpoints_and_its_state_goes_on_consistently(tmp_path):
    """The state on disk then is of the epoch before, and so must be all that comes back."""
    directory = tmp_path / "run"
    remember = Remember(directory)
    two = CONFIG.model_copy(update={"epochs": 2})
    _, result = train(directory, two, [remember])
    assert result.best_epoch == 1  # The second epoch has replaced the best weights.
    (directory / "state.json").write_text(remember.states[0])
    model, result = train(directory, CONFIG.model_copy(update={"epochs": 1}))
    assert result.best_epoch == 0 and len(result.history) == 1
    assert_weights(model, remember.weights[0])

    # Killed before the first state was written: checkpoints without a state are no run.
    (directory / "state.json").unlink()
    once_more = Remember()
    _, result = train(directory, CONFIG.model_copy(update={"epochs": 1}), [once_more])
    assert len(once_more.weights) == 1 and len(result.history) == 1


def test_a_run_that_starts_anew_leaves_nothing_of_the_one_before_to_go_on_from(learned, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(learned[0] / "run", directory)

    class Stop(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    other = CONFIG.model_copy(update={"learning_rate": 0.003, "epochs": 1})
    with pytest.raises(KeyboardInterrupt):
        train(directory, other, [Stop()], resume=False)
    _, result = train(directory, other)
    assert len(result.history) == 1
    assert result.history[0]["loss"] > learned[2].history[-1]["loss"] + 0.5


def test_a_loss_that_is_no_number_ends_the_run_with_advice():
    with pytest.raises(TrainingError) as error:
        train(None, CONFIG.model_copy(update={"learning_rate": 1e30}))
    assert str(error.value) == (
        "the loss is nan in epoch 1: lower training.learning_rate, "
        "or look for extreme values among the content features"
    )


def test_content_that_is_no_number_is_told_before_training():
    broken = [ItemFeatures(name, {"text": np.full(3, np.nan)}) for name in NAMES[:2]]
    sound = [ItemFeatures(name, {"text": np.ones(3)}) for name in NAMES[2:]]
    with pytest.raises(DataError, match="'item 1': modality 'text' has values that are not finite"):
        make([*broken, *sound], views=("mm",))


def fit_two_views(calibration=None):
    """One epoch of both views; returns the model and its validation batches."""
    content = np.random.default_rng(0).normal(size=(ITEMS, 8))
    features = [ItemFeatures(n, {"text": of}) for n, of in zip(NAMES, content, strict=True)]
    once = CONFIG.model_copy(update={"epochs": 1})
    model, training, validation = make(features, views=("id", "mm"))
    fit(model, training, validation, once, verbose=0, calibration_data=calibration)
    return model, validation


@pytest.fixture(scope="module")
def weighed_on_validation():
    return fit_two_views()


@pytest.mark.parametrize("view", [0, 1])
def test_views_are_weighed_on_the_examples_that_are_given_for_it(weighed_on_validation, view):
    model, validation = weighed_on_validation
    every_item = validation.map(
        lambda batch: {
            **batch,
            "target": tf.repeat(tf.range(1, ITEMS + 1)[tf.newaxis], len(batch["target"]), axis=0),
        }
    )
    # What one view alone takes for the best item is, of those examples, what people want.
    ranks = RankingEvaluator(model).ranks(every_item, float(view))
    (batch,), (ranks,) = validation, ranks
    favourites = tf.argmin(ranks, axis=1, output_type=tf.int32)[:, tf.newaxis] + 1
    calibration = tf.data.Dataset.from_tensors({**batch, "target": favourites})
    weighed, _ = fit_two_views(calibration)
    assert abs(float(weighed.id_weight) - view) < 0.3
    assert abs(float(model.id_weight) - float(weighed.id_weight)) > 0.1


def test_weight_decay_leaves_norms_biases_and_interests_alone():
    model, _, _ = make()
    model.build_variables()
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = make_optimizer(CONFIG.model_copy(update={"weight_decay": 1.0}))
    optimizer.build(model.trainable_variables)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    for variable, values in zip(model.trainable_variables, before, strict=True):
        spared = any(n in variable.name for n in _SPARED)
        expected = values if spared else values * (1 - CONFIG.learning_rate)
        np.testing.assert_allclose(variable, expected, rtol=1e-5, err_msg=variable.name)


if __name__ == "__main__":
    train(Path(sys.argv[1]), CONFIG, [Kill(epoch=2)])
