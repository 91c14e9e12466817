"""`fit`: the one way to train, for notebooks and the pipeline alike."""

import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras

from bivrec_tf.co_occurrence import co_occurrence_vectors
from bivrec_tf.config import TrainingConfig
from bivrec_tf.errors import BivrecError, ConfigError
from bivrec_tf.evaluation import SELECTION_METRIC, RankingEvaluator
from bivrec_tf.models import SequentialRecommender
from bivrec_tf.models.sequential_recommender import IS_TARGET, SEQUENCE
from bivrec_tf.precision import set_policy

logger = logging.getLogger(__name__)
"""Tells of every finished epoch in one line."""

_RUN_FILE = "run.json"
_STATE_FILE = "state.json"
# Share of the learning rate that is left at the end.
_LOWEST_RATE = 0.02


class TrainingError(BivrecError, RuntimeError):
    """Training went wrong in a way that more of it would not mend."""


@dataclass(frozen=True)
class TrainingResult:
    """What `fit` reports.

    Attributes:
      history: One dictionary of losses, diagnostics and validation metrics for every epoch.
      best_epoch: 0-based epoch whose weights the model now has.
      metrics: Validation metrics of the finished model (calibrated).
    """

    history: list[dict[str, float]]
    best_epoch: int
    metrics: dict[str, float]


class WarmUpAndDecay(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly and then falls along half a cosine.

    Args:
      highest: The learning rate after the warm-up.
      warmup_steps: Steps of the rise; may be 0.
      total_steps: Steps at which the fall ends, at a fiftieth of the highest; none: no fall.
    """

    def __init__(self, highest: float, warmup_steps: int, total_steps: int | None = None) -> None:
        self.highest = highest
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step):
        """Returns the learning rate of a step, float32 scalar."""
        step = tf.cast(step, tf.float32)
        rate = self.highest * tf.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)
        if self.total_steps is None:
            return rate
        share = tf.clip_by_value(
            (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1), 0.0, 1.0
        )
        return rate * (_LOWEST_RATE + (1 - _LOWEST_RATE) * 0.5 * (1 + tf.cos(math.pi * share)))

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "highest": self.highest,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }


def make_optimizer(
    config: TrainingConfig, steps_per_epoch: int | None = None
) -> tf_keras.optimizers.Optimizer:
    """Returns AdamW with a global gradient norm, loss-scaled under float16.

    Args:
      config: Its learning rate, decay, clipping and precision.
      steps_per_epoch: Without it the learning rate does not decay.
    """
    total, warmup = None, config.learning_rate_warmup_steps
    if config.learning_rate_decay == "cosine" and steps_per_epoch is not None:
        total = config.epochs * steps_per_epoch
        warmup = min(warmup, total // 10)
    optimizer = tf_keras.optimizers.AdamW(
        learning_rate=WarmUpAndDecay(config.learning_rate, warmup, total),
        weight_decay=config.weight_decay,
        global_clipnorm=config.gradient_clip_norm,
    )
    # Decay pulls weights to zero; what is spared does not belong there.
    optimizer.exclude_from_weight_decay(
        var_names=[
            "bias",
            "gamma",
            "beta",
            "mean",
            "raw_scale",
            "raw_rate",
            "scale_weight",
            "share",
            "offset",
        ]
    )
    if config.precision == "mixed_float16":
        return tf_keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def set_precision(config: TrainingConfig) -> None:
    """Sets the process's Keras dtype policy; call before the model is built."""
    set_policy(config.precision)


def in_float32(model: SequentialRecommender) -> SequentialRecommender:
    """Returns a model that computes in float32, with the weights of one that may not.

    What is exported is to give the same scores wherever it is rebuilt (`bivrec_tf.saved_model`).
    Sets the process's policy.
    """
    if tf_keras.mixed_precision.global_policy().name == "float32":
        return model
    tf_keras.mixed_precision.set_global_policy("float32")
    copy = type(model)(
        model.config, model.catalogue, model.loss_config, model.positions_per_sequence
    )
    copy.build_variables()
    weights = model.named_variables()
    for name, variable in copy.named_variables().items():
        variable.assign(weights[name].numpy())
    copy.prepare_content()
    return copy


def device_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """Returns the strategy in whose scope the model is to be built.

    `mirrored` takes all visible GPUs; where there are none, all logical CPU devices.
    """
    if config.strategy == "one_device":
        return tf.distribute.get_strategy()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices)


class _Progress(tf_keras.callbacks.Callback):
    """Validates, stops early, and keeps checkpoints from which a killed run goes on."""

    def __init__(
        self,
        evaluator: RankingEvaluator,
        validation: tf.data.Dataset,
        patience: int,
        directory: Path | None,
    ) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self.best_epoch = -1
        self._evaluator = evaluator
        self._validation = validation
        self._patience = patience
        self._keeps_checkpoints = directory is not None
        self._directory = directory or Path()
        self._best_weights: list | None = None
        self._best_checkpoint = ""
        self._latest: tf.train.CheckpointManager | None = None
        self._best: tf.train.CheckpointManager | None = None
        self._began = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def attach(self, model: SequentialRecommender, resume: bool) -> int:
        """Prepares checkpoints; returns the epoch to start with."""
        if not self._keeps_checkpoints:
            return 0
        latest = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        self._latest = tf.train.CheckpointManager(latest, self._directory / "latest", 2)
        best = tf.train.Checkpoint(model=model)
        self._best = tf.train.CheckpointManager(best, self._directory / "best", 2)
        state_file = self._directory / _STATE_FILE
        if not resume or not state_file.exists():
            return 0
        state = json.loads(state_file.read_text())
        latest.restore(str(self._directory / "latest" / state["checkpoint"])).assert_consumed()
        # Of the restored statistics: the same but for the rounding of this machine.
        model.prepare_content()
        self.history, self.best_epoch = state["history"], state["best_epoch"]
        self._best_checkpoint = state["best_checkpoint"]
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether no better epoch came within the patience."""
        return len(self.history) - 1 - self.best_epoch >= self._patience

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        # Of training alone: what follows is evaluation and checkpoints.
        logs["seconds"] = time.perf_counter() - self._began
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}: lower training.learning_rate, "
                "or look for extreme values among the content features"
            )
        values = self._evaluator.evaluate(self._validation)
        logs.update({f"val_{name}": value for name, value in values.items()})
        self.history.append({name: float(value) for name, value in logs.items()})
        if self.best_epoch < 0 or values[SELECTION_METRIC] > self._selected(self.best_epoch):
            self.best_epoch = epoch
            self._keep_best()
        self._save()
        logger.info(
            "epoch %d of %d: loss %.3f, validation NDCG@10 %.4f (best %.4f)",
            epoch + 1,
            self.params["epochs"],
            logs["loss"],
            values[SELECTION_METRIC],
            self._selected(self.best_epoch),
        )
        if self.finished:
            self.model.stop_training = True

    def restore_best(self) -> None:
        """Gives the model the weights of the best epoch."""
        if self._best is not None:
            checkpoint = tf.train.Checkpoint(model=self.model)
            best = str(self._directory / "best" / self._best_checkpoint)
            checkpoint.restore(best).assert_existing_objects_matched()
        elif self._best_weights is not None:
            self.model.set_weights(self._best_weights)

    def _selected(self, epoch):
        return self.history[epoch][f"val_{SELECTION_METRIC}"]

    def _keep_best(self):
        if self._best is not None:
            # Numbered by epoch: never written over the one that the state on disk still names.
            saved = self._best.save(checkpoint_number=self.best_epoch)
            self._best_checkpoint = os.path.basename(saved)
        else:
            self._best_weights = self.model.get_weights()

    def _save(self):
        if self._latest is None:
            return
        state = {
            "checkpoint": os.path.basename(self._latest.save()),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_checkpoint": self._best_checkpoint,
        }
        # The state names its checkpoints and is replaced in one step: whatever moment a run is
        # killed at, it goes on from a state and checkpoints that belong together.
        scratch = self._directory / f"{_STATE_FILE}.new"
        scratch.write_text(json.dumps(state))
        scratch.replace(self._directory / _STATE_FILE)


def _identify_run(model: SequentialRecommender, config: TrainingConfig) -> dict[str, str]:
    free = {"early_stopping_patience"}
    if config.learning_rate_decay == "none":
        free.add("epochs")  # Otherwise the learning rate of every step depends on them.
    settings = config.model_dump(mode="json", exclude=free)
    text = json.dumps([model.config.model_dump(mode="json"), settings], sort_keys=True)
    # Another version may make another model of the same configuration.
    shapes = {name: list(variable.shape) for name, variable in model.named_variables().items()}
    weights = json.dumps(shapes, sort_keys=True)
    return {
        "configuration": hashlib.sha256(text.encode()).hexdigest(),
        "weights": hashlib.sha256(weights.encode()).hexdigest(),
        "items": model.catalogue.fingerprint,
    }


def _claim(
    directory: Path, model: SequentialRecommender, config: TrainingConfig, resume: bool
) -> None:
    """Makes sure that a directory's checkpoints are of this run."""
    directory.mkdir(parents=True, exist_ok=True)
    run_file, run = directory / _RUN_FILE, _identify_run(model, config)
    if resume and run_file.exists():
        found = json.loads(run_file.read_text())
        different = [name for name in run if found.get(name) != run[name]]
        if different:
            raise ConfigError(
                f"{directory} holds checkpoints of a run with other {' and '.join(different)}: "
                "use another directory, remove it, or pass resume=False"
            )
    if not resume:
        # Or a run that is killed in its first epoch would go on from the run before it.
        (directory / _STATE_FILE).unlink(missing_ok=True)
    run_file.write_text(json.dumps(run))


def fit(
    model: SequentialRecommender,
    training_data: tf.data.Dataset,
    validation_data: tf.data.Dataset,
    config: TrainingConfig,
    directory: str | os.PathLike | None = None,
    log_directory: str | os.PathLike | None = None,
    resume: bool = True,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    verbose: int | None = None,
    calibration_data: tf.data.Dataset | None = None,
) -> TrainingResult:
    """Trains a model until validation NDCG@10 no longer rises, and calibrates it.

    After every epoch the whole catalogue is ranked for the validation histories. The model ends
    with the weights of the best epoch, with the weight of its views and the offset of cold items
    chosen on validation.

    Args:
      model: A model that is not compiled, or that was compiled with an optimizer to keep. Built in
        the scope of a `device_strategy`, it is trained on that strategy's devices.
      training_data: Batches of `data.training_batches`.
      validation_data: Batches of `data.evaluation_batches`.
      config: Epochs, optimizer, patience.
      directory: Where checkpoints are kept; a run that was killed goes on from the last epoch
        that it finished. Nothing is kept without it.
      log_directory: Where TensorBoard's scalars go; none are written without it.
      resume: Whether to go on from checkpoints in `directory`.
      callbacks: Further Keras callbacks.
      verbose: As in Keras; without it a progress bar on a terminal and a line an epoch elsewhere.
      calibration_data: Validation examples for the calibration, where `validation_data` is a
        smaller sample of them, that an epoch can afford; `validation_data` without it.

    Returns:
      What happened, epoch by epoch, and the validation metrics of the finished model.

    Raises:
      TrainingError: The loss is not a finite number.
      ConfigError: `directory` holds checkpoints of another configuration, architecture or
        catalogue, or a warm start is to be followed by a random one.
    """
    steps = int(training_data.cardinality())
    if steps == tf.data.UNKNOWN_CARDINALITY:
        # One pass over the data, which fills its cache. Keras would find the end of an epoch by
        # stepping over it, which moves the optimizer's count of steps.
        steps = int(training_data.reduce(0, lambda count, _: count + 1))
        training_data = training_data.apply(tf.data.experimental.assert_cardinality(steps))
    strategy = model.distribute_strategy
    with strategy.scope():
        if getattr(model, "optimizer", None) is None:
            model.compile(optimizer=make_optimizer(config, steps))
        model.build_variables()
        model.optimizer.build(model.trainable_variables)
    path = None if directory is None else Path(directory)
    if path is not None:
        _claim(path, model, config, resume)
    evaluator = RankingEvaluator(model)
    progress = _Progress(evaluator, validation_data, config.early_stopping_patience, path)
    first_epoch = progress.attach(model, resume)
    if model.known_of_content is not None and config.item_initialisation == "random":
        raise ConfigError(
            "the model was given a warm start, of which a random start would use nothing: set "
            "item_initialisation to co_occurrence"
        )
    if config.item_initialisation == "co_occurrence" and model.optimizer.iterations.numpy() == 0:
        histories = ((b[SEQUENCE].numpy(), b[IS_TARGET].numpy()) for b in training_data)
        items, width = model.catalogue.num_trained, model.config.dimension
        vectors = co_occurrence_vectors(histories, items, width, seed=config.seed)
        model.start_from(vectors, config.content_prior)
    if verbose is None:
        verbose = 1 if sys.stdout.isatty() else 2
    extra = list(callbacks)
    if log_directory is not None:
        extra.append(tf_keras.callbacks.TensorBoard(log_directory, write_graph=False))
    progress.set_model(model)
    if first_epoch < config.epochs and not (progress.history and progress.finished):
        model.fit(
            training_data,
            epochs=config.epochs,
            initial_epoch=first_epoch,
            callbacks=[progress, *extra],
            verbose=verbose,
        )
    progress.restore_best()
    of_calibration = validation_data if calibration_data is None else calibration_data
    evaluator.calibrate(of_calibration, config.cold_item_budget, config.calibrate_popularity)
    metrics = evaluator.evaluate(validation_data, coverage=True)
    return TrainingResult(progress.history, progress.best_epoch, metrics)
