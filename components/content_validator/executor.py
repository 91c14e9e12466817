"""The TFX door: item features and the last model in, findings out."""

import json
import logging
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from bivrec_tf.content_statistics import content_statistics, describe_drift, from_json
from bivrec_tf.export import CONTENT_STATISTICS_FILE
from components.artifacts import file_patterns, matching_files
from components.content_encoder.modalities_file import read_modalities
from components.item_features import read_item_features

ITEM_FEATURES_KEY = "item_features"
MODEL_KEY = "model"
ANOMALIES_KEY = "anomalies"
DRIFT_PROPERTY = "drift"
DRIFT_FILE = "drift.json"


class Executor(BaseExecutor):
    """Compares content with that of a model."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes what changed since the model was trained, in words; nothing without a model."""
        self._log_startup(input_dict, output_dict, exec_properties)
        item_features = artifact_utils.get_single_instance(input_dict[ITEM_FEATURES_KEY])
        anomalies = artifact_utils.get_single_instance(output_dict[ANOMALIES_KEY])
        findings: list[str] = []
        for model in input_dict.get(MODEL_KEY) or []:
            findings = _findings(model, item_features)
        for finding in findings:
            logging.warning("ContentValidator: %s", finding)
        anomalies.set_string_custom_property(DRIFT_PROPERTY, json.dumps(findings))
        io_utils.write_string_file(
            os.path.join(anomalies.uri, DRIFT_FILE), json.dumps(findings, indent=2)
        )


def _findings(model: types.Artifact, item_features: types.Artifact) -> list[str]:
    # A trained model lies in a folder of its artifact, an imported version is its own folder.
    folders = [path_utils.serving_model_path(model.uri), model.uri]
    places = [os.path.join(folder, CONTENT_STATISTICS_FILE) for folder in folders]
    place = next((place for place in places if fileio.exists(place)), None)
    if place is None:
        logging.warning("ContentValidator: %s keeps no statistics of its content", model.uri)
        return []
    with fileio.open(place) as file:
        before = from_json(file.read())
    files = matching_files(file_patterns([item_features]), "item features")
    modalities = read_modalities(item_features.uri)
    return describe_drift(before, content_statistics(read_item_features(files), modalities))
