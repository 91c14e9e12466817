"""The Trainer's `run_fn`: from TFX's files to `bivrec_tf.training.fit` and `bivrec_tf.export`."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from bivrec_tf import data, features, training
from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.config import ExportConfig, ModelConfig, TrainingConfig
from bivrec_tf.evaluation import CALIBRATION_EXAMPLES
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from bivrec_tf.saved_model import read_saved_model
from bivrec_tf.transfer import warm_start
from components.artifacts import matching_files
from components.content_encoder.modalities_file import read_modalities
from components.item_features import read_item_features
from components.sequence_trainer.executor import (
    ITEM_FEATURE_FILES,
    ITEM_FEATURES_URI,
    VALIDATION_FILES,
)
from components.serving_validator.offline import (
    OFFLINE_ANSWERS,
    offline_answers,
    write_offline_answers,
)
from pipeline.preprocessing import VOCABULARY
from serving.warm_up import write_warm_up_requests

# Keys of the component's custom configuration.
MODEL = "model"
TRAINING = "training"
EXPORT = "export"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
VALIDATION_REQUESTS = "validation_requests"
_WARM_UP_HISTORIES = 3
# Servers run warm-up requests on the model beside them, whatever name they give it.
_SERVED_NAME = "recommender"


class TransformLookup(tf.Module):
    """Item ids to rows through Transform's own graph, and cold items through a second table.

    Args:
      transform: The layer that holds Transform's graph.
      catalogue: The item order, which begins as Transform's vocabulary does.
    """

    def __init__(self, transform: tf_keras.Model, catalogue: ItemCatalogue) -> None:
        super().__init__()
        self._transform = transform
        self._cold = data.ItemLookup(catalogue, first_row=catalogue.num_trained + 1)

    def __call__(self, item_ids: tf.Tensor) -> tf.Tensor:
        """Returns int32 rows, shaped like the string ids `[n, L]`; 0 for unknown ones."""
        # Through one column: the graph wants sparse input and would drop empty columns.
        flat = tf.reshape(item_ids, [-1, 1])
        rows = self._transform({features.HISTORY: tf.sparse.from_dense(flat)})[features.HISTORY]
        # Padding is not in the sparse tensor, so it stays at row 0.
        rows = tf.sparse.to_dense(rows)
        rows = tf.pad(rows, [[0, 0], [0, 1 - tf.shape(rows)[1]]])
        trained = tf.reshape(tf.cast(rows, tf.int32), tf.shape(item_ids))
        return tf.where(trained > 0, trained, self._cold(item_ids))


def _some_histories(examples: tf.data.Dataset, count: int) -> list[list[str]]:
    """Histories spread over the split, not its first users alone; none of them empty."""
    total = int(examples.reduce(np.int64(0), lambda number, _: number + 1))
    histories = []
    for serialized in examples.shard(max(1, total // count), 0).batch(1):
        items = data.parse_sequences(serialized)[features.HISTORY].values.numpy()
        if len(items):
            histories.append([item.decode() for item in items])
    return histories[:count]


def checkpoint_directory(custom: Mapping[str, Any], transform_output: str) -> Path:
    """Returns the local folder of a training's checkpoints.

    It is the same for the same configuration on the same data, so that a killed run goes on from
    its last epoch when the pipeline is run again. Where the configured place is a bucket, which
    checkpoints of every epoch do not belong in, it is a new folder of this machine.

    Args:
      custom: The component's custom configuration.
      transform_output: URI of Transform's graph, which stands for the data.
    """
    place = custom[CHECKPOINTS]
    if "://" in place:
        return Path(tempfile.mkdtemp(prefix="bivrec-checkpoints-"))
    identity = json.dumps([custom[MODEL], custom[TRAINING], transform_output], sort_keys=True)
    return Path(place) / hashlib.sha256(identity.encode()).hexdigest()[:16]


def _warm_up_requests(
    histories: Sequence[Sequence[str]],
) -> Iterator[tuple[str, dict[str, list[list[str]]]]]:
    for history in histories or [[]]:
        # As clients send them; "" is padding, and a list without any string has no type.
        inputs = {features.HISTORY: [list(history) or [""]]}
        yield features.SERVING_DEFAULT, inputs
        yield features.RECOMMEND, inputs


def run_fn(fn_args: FnArgs) -> None:
    """Trains, calibrates and exports a model, and writes the offline answers.

    Args:
      fn_args: TFX's arguments, with the files that `components.sequence_trainer` adds.

    Raises:
      TrainingError: The loss is not a finite number.
      DataError: There is nothing to train on or to validate with.
    """
    custom = fn_args.custom_config
    model_config = ModelConfig.model_validate(custom[MODEL])
    training_config = TrainingConfig.model_validate(custom[TRAINING])
    tf_keras.utils.set_random_seed(training_config.seed)
    training.set_precision(training_config)

    windows = data.windows_from_rows(
        data.read_examples(matching_files(fn_args.train_files, "transformed training sequences"))
    ).cache()
    validation = data.read_examples(
        matching_files([custom[VALIDATION_FILES]], "validation sequences")
    )

    transform = tft.TFTransformOutput(fn_args.transform_output)
    trained = [item.decode() for item in transform.vocabulary_by_name(VOCABULARY)]
    counts = data.count_targets(windows, len(trained)).numpy()[1:]
    # Without content nothing is known of an item that training never saw: the catalogue is then
    # the vocabulary alone.
    patterns = custom[ITEM_FEATURE_FILES]
    items = read_item_features(matching_files(patterns, "item features")) if patterns else ()
    catalogue = ItemCatalogue.build(trained, counts, items)

    with training.device_strategy(training_config).scope():
        model = BiVRec(
            model_config,
            catalogue,
            training_config.loss,
            training_config.positions_per_sequence,
        )
    encoders = {
        name: {"encoder": part["encoder"], "fingerprint": part["fingerprint"]}
        for name, part in (read_modalities(custom[ITEM_FEATURES_URI]) if patterns else {}).items()
    }
    if training_config.warm_start:
        warm_start(model, read_saved_model(training_config.warm_start), encoders)
    lookup = TransformLookup(transform.transform_features_layer(), catalogue)
    batches = data.training_batches(
        windows, model_config.max_history, training_config.batch_size, training_config.seed
    )
    item_lookup = data.ItemLookup(catalogue)
    validation_batches, calibration_batches = (
        data.evaluation_batches(
            validation, item_lookup, training_config.evaluation_batch_size, most
        )
        for most in (training_config.max_evaluation_examples, CALIBRATION_EXAMPLES)
    )
    checkpoints = checkpoint_directory(custom, fn_args.transform_output)
    result = training.fit(
        model,
        batches,
        validation_batches,
        training_config,
        directory=checkpoints,
        log_directory=os.path.join(custom[TENSORBOARD], os.path.basename(fn_args.model_run_dir)),
        verbose=0,
        calibration_data=calibration_batches,
    )
    model = training.in_float32(model)
    options = ExportConfig.model_validate(custom[EXPORT])
    export(model, fn_args.serving_model_dir, lookup, result.metrics, options, encoders)
    histories = _some_histories(validation, custom[VALIDATION_REQUESTS])
    write_warm_up_requests(
        fn_args.serving_model_dir, _SERVED_NAME, _warm_up_requests(histories[:_WARM_UP_HISTORIES])
    )
    # What could resume this training is of no more use: the model is exported.
    shutil.rmtree(checkpoints)
    write_offline_answers(
        os.path.join(fn_args.model_run_dir, OFFLINE_ANSWERS),
        offline_answers(model, histories, options),
    )
