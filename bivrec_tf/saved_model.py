"""Reading an exported model back: for new items without training, and for transfer."""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import MODEL_BEFORE, WEIGHTS_BEFORE, ExportConfig, ModelConfig
from bivrec_tf.content_statistics import ModalityStatistics, from_json
from bivrec_tf.errors import ConfigError, DataError
from bivrec_tf.export import CONTENT_STATISTICS_FILE, DESCRIPTION_FILE
from bivrec_tf.features import VIEWS
from bivrec_tf.models import BiVRec
from bivrec_tf.retrieval import ItemTable
from bivrec_tf.serving_module import ID_WEIGHTS, ServingModule

logger = logging.getLogger(__name__)

ID, MM = VIEWS
_VARIABLES = os.path.join("variables", "variables")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class SavedRecommender:
    """What an exported SavedModel holds, as arrays.

    Attributes:
      directory: Where it was read from.
      description: The JSON object beside it, see `export`.
      config: Its architecture.
      export: How it was exported.
      modalities: Name -> `dimension`, `encoder`, `fingerprint` of what its multimodal view is
        made of.
      num_trained: Items with an id row: rows `1 .. num_trained`.
      weights: Every variable of the model by its name.
      item_ids: Its item order, "" first.
      counts: int64 `[rows]`, training interactions.
      listed: bool `[rows]`, see `ItemCatalogue`.
      retired: bool `[rows]`, see `ItemCatalogue`.
      content_hashes: int64 `[rows]`, see `ItemCatalogue.content_hashes`.
      content_statistics: Of the content that it was trained with.
      tables: float32 `[rows, D]`, the index's item vectors of every view.
    """

    directory: str
    description: Mapping[str, Any]
    config: ModelConfig
    export: ExportConfig
    modalities: Mapping[str, Mapping[str, Any]]
    num_trained: int
    weights: Mapping[str, np.ndarray]
    item_ids: tuple[str, ...]
    counts: np.ndarray
    listed: np.ndarray
    retired: np.ndarray
    content_hashes: np.ndarray
    content_statistics: Mapping[str, ModalityStatistics]
    tables: Mapping[str, np.ndarray]


def read_saved_model(directory: str | os.PathLike) -> SavedRecommender:
    """Reads weights and items of an exported model; nothing in it is executed or unpickled.

    Args:
      directory: A SavedModel that `export` wrote: a version folder of the model server.

    Raises:
      ConfigError: There is no such model, or it was exported by a version that kept too little.
    """
    directory = os.fspath(directory)
    try:
        description = json.loads(_read(directory, DESCRIPTION_FILE))
        reader = tf.train.load_checkpoint(os.path.join(directory, _VARIABLES))
    except (tf.errors.OpError, ValueError) as error:
        raise ConfigError(
            f"{directory}: not a model exported by BiVRec-TF ({error}). Name the version folder, "
            "which holds saved_model.pb and assets.extra."
        ) from error
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key in reader.get_variable_to_shape_map():
        name, _, inner = key.removesuffix(_VALUE).partition("/")
        if name in ServingModule.SAVED_PARTS and key.endswith(_VALUE):
            # A checkpoint's keys escape slashes in the names of a dictionary.
            inner = re.sub(r"\.(.)", lambda match: "/" if match[1] == "S" else match[1], inner)
            parts.setdefault(name, {})[inner] = reader.get_tensor(key)
    try:
        catalogue, weights = parts["saved_catalogue"], parts["saved_weights"]
        tables: dict[str, np.ndarray] = {
            view: ItemTable.from_variables(parts["saved_tables"], view)
            for view in VIEWS
            if view in parts["saved_tables"]
        }
        num_trained = description["items"]["trained"]
        for name, value in WEIGHTS_BEFORE.items():
            weights.setdefault(name, np.array(value, np.float32))
        if ID in tables:
            weights[ID_WEIGHTS] = tables[ID][1 : num_trained + 1]
        return SavedRecommender(
            directory=directory,
            description=description,
            config=ModelConfig.model_validate({**MODEL_BEFORE, **description["model"]}),
            export=ExportConfig.model_validate(description.get("export", {})),
            modalities=description["modalities"],
            num_trained=num_trained,
            weights=weights,
            item_ids=tuple(item.decode() for item in catalogue["item_ids"].tolist()),
            counts=catalogue["counts"],
            listed=catalogue["listed"],
            retired=catalogue["retired"],
            content_hashes=catalogue["content_hashes"],
            content_statistics=from_json(_read(directory, CONTENT_STATISTICS_FILE)),
            tables=tables,
        )
    except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{directory}: exported by another version of BiVRec-TF, or damaged: it does not hold "
            f"what there is to go on from ({error!r:.200}). Train and push a model with this "
            "version first."
        ) from error


def _read(directory: str, name: os.PathLike) -> str:
    with tf.io.gfile.GFile(os.path.join(directory, os.fspath(name))) as file:
        return file.read()


def restore(saved: SavedRecommender, items: Iterable[ItemFeatures]) -> BiVRec:
    """Rebuilds a trained model over an updated item table, without training.

    Items that training knew keep their id rows; new ones get rows of their own from their
    content, by the model's own projection; those that the table lists no more are retired: the
    model understands them in histories, by the vectors that they had, and never recommends them.

    Args:
      saved: The exported model.
      items: Content of every item of the updated table, by the same encoders.

    Returns:
      A model that scores unchanged items as the saved one does.

    Raises:
      ConfigError: The model has no multimodal view, so that content means nothing to it.
      DataError: The features are not those that the model was trained with.
    """
    if MM not in saved.config.views:
        raise ConfigError(
            f"{saved.directory}: the model has no multimodal view and cannot know new items by "
            "their content. Train with modalities and both views."
        )
    dimensions = {name: part["dimension"] for name, part in saved.modalities.items()}
    items = list(items)
    unknown = {name for item in items for name in item.features} - dimensions.keys()
    if unknown:
        logger.warning(
            "%s was trained without %s: it is left out until a model is trained with it",
            saved.directory,
            ", ".join(sorted(unknown)),
        )
        items = [
            ItemFeatures(item.item_id, {n: v for n, v in item.features.items() if n in dimensions})
            for item in items
        ]
    for item in items:
        for name, vector in item.features.items():
            if dimensions[name] != len(vector):
                raise DataError(
                    f"item {item.item_id!r}: feature {name!r} of {len(vector)} values; the model "
                    f"was trained with {dimensions}. Use the modalities and encoders that it was "
                    "trained with, or train a new model."
                )
    listed_now = {item.item_id for item in items}
    was_listed = saved.listed | saved.retired
    retired = {
        item_id
        for item_id, listed in zip(saved.item_ids, was_listed, strict=True)
        if listed and item_id not in listed_now
    }
    catalogue = ItemCatalogue.build(
        saved.item_ids[1 : saved.num_trained + 1],
        saved.counts[1 : saved.num_trained + 1],
        items,
        dimensions,
        retired,
    )
    model = BiVRec(saved.config, catalogue)
    model.build_variables()
    variables = model.named_variables()
    different = sorted(
        name
        for name in variables.keys() | saved.weights.keys()
        if name not in saved.weights
        or name not in variables
        or saved.weights[name].shape != tuple(variables[name].shape)
    )
    if different:
        raise ConfigError(
            f"{saved.directory}: exported by version {saved.description['bivrec_tf_version']}, "
            f"whose weights are not those of this one (such as {different[:3]}). Refresh with that "
            "version, or train a new model."
        )
    for name, variable in variables.items():
        variable.assign(saved.weights[name])
    model.prepare_content()
    model.weights_are_given = True
    row_of = {item_id: row for row, item_id in enumerate(saved.item_ids)}
    rows = np.flatnonzero(catalogue.retired)
    old_rows = [row_of[catalogue.item_ids[row]] for row in rows]
    model.multimodal_items.retain(rows, saved.tables[MM][old_rows])
    return model
