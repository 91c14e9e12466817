"""The exported model: a SavedModel whose signatures hold everything from item ids to item ids."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from bivrec_tf.config import ExportConfig
from bivrec_tf.content_statistics import ModalityStatistics, content_statistics, to_json
from bivrec_tf.models import BiVRec
from bivrec_tf.serving_module import ServingModule
from bivrec_tf.signatures import signatures
from bivrec_tf.version import __version__

DESCRIPTION_FILE = Path("assets.extra") / "bivrec.json"
"""Beside the SavedModel: version, configuration, item order fingerprint, validation metrics."""
CONTENT_STATISTICS_FILE = Path("assets.extra") / "content_statistics.json"
"""Beside the SavedModel: what the content of its items looks like, see `content_statistics`."""


def export(
    model: BiVRec,
    directory: str | os.PathLike,
    lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
    metrics: Mapping[str, float] | None = None,
    options: ExportConfig | None = None,
    encoders: Mapping[str, Mapping[str, str | None]] | None = None,
    statistics: Mapping[str, ModalityStatistics] | None = None,
) -> ServingModule:
    """Writes a SavedModel that TensorFlow Serving loads as it is.

    Args:
      model: A trained model.
      directory: Where to; created. To be served it must be named by a version number.
      lookup: Maps item ids to rows in the graph; the catalogue's own lookup without it.
      metrics: Validation metrics, for the description beside the model.
      options: How many results there are, and in what the item tables are kept.
      encoders: `encoder` and `fingerprint` of every modality, where they are known: what a later
        refresh or transfer holds its own features against.
      statistics: Of the content that the model was trained with; the catalogue's without it.

    Returns:
      The module that was saved.
    """
    module = ServingModule(model, lookup, options)
    tf.saved_model.save(module, os.fspath(directory), signatures=signatures(module))
    catalogue, encoders = model.catalogue, encoders or {}
    description = {
        "bivrec_tf_version": __version__,
        "model": model.config.model_dump(mode="json"),
        "export": module.options.model_dump(mode="json"),
        "items": {
            "fingerprint": catalogue.fingerprint,
            "trained": catalogue.num_trained,
            "cold": catalogue.num_items - catalogue.num_trained,
            "retired": int(catalogue.retired.sum()),
        },
        "modalities": {
            name: {"dimension": dimension, **encoders.get(name, {})}
            for name, dimension in catalogue.modalities.items()
        },
        "id_weight": float(model.id_weight.numpy()),
        "popularity_weight": float(model.popularity_weight.numpy()),
        "cold_offset": float(model.cold_offset.numpy()),
        "validation": dict(metrics or {}),
    }
    if statistics is None:
        statistics = content_statistics(catalogue.items(), catalogue.modalities)
    for place, text in (
        (DESCRIPTION_FILE, json.dumps(description, indent=2, sort_keys=True)),
        (CONTENT_STATISTICS_FILE, to_json(statistics)),
    ):
        path = os.path.join(os.fspath(directory), place)
        tf.io.gfile.makedirs(os.path.dirname(path))
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(text)
    return module
