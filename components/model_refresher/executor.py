"""The TFX door: served model and item features in; refreshed model, answers and blessing out."""

import logging
import os
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.artifacts import file_patterns, matching_files
from components.content_encoder.modalities_file import read_modalities
from components.item_features import read_item_features
from components.model_refresher.refresh_model import refresh_model
from components.serving_validator.offline import OFFLINE_ANSWERS, write_offline_answers

SERVED_KEY = "served"
ITEM_FEATURES_KEY = "item_features"
MAX_RETIRED_KEY = "max_retired"
MODEL_KEY = "model"
MODEL_RUN_KEY = "model_run"
BLESSING_KEY = "blessing"
REPORT_PROPERTY = "report"
REPORT_FILE = "report.json"


class Executor(BaseExecutor):
    """Refreshes a model."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Exports the refreshed model, and blesses it if unchanged items score as before.

        Raises:
            ConfigError: the served model cannot be refreshed.
            DataError: the content was not encoded as the model's was.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        served = artifact_utils.get_single_instance(input_dict[SERVED_KEY])
        item_features = artifact_utils.get_single_instance(input_dict[ITEM_FEATURES_KEY])
        model = artifact_utils.get_single_instance(output_dict[MODEL_KEY])
        model_run = artifact_utils.get_single_instance(output_dict[MODEL_RUN_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        files = matching_files(file_patterns([item_features]), "item features")
        report, answers = refresh_model(
            served.uri,
            read_item_features(files),
            read_modalities(item_features.uri),
            path_utils.serving_model_dir(model.uri),
            exec_properties[MAX_RETIRED_KEY],
        )
        fileio.makedirs(model_run.uri)
        write_offline_answers(os.path.join(model_run.uri, OFFLINE_ANSWERS), answers)
        for problem in report.problems:
            logging.error("ModelRefresher: %s", problem)
        is_blessed = not report.problems
        name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(is_blessed))
        blessing.set_string_custom_property(REPORT_PROPERTY, report.to_json())
        for file_name, text in ((name, ""), (REPORT_FILE, report.to_json())):
            io_utils.write_string_file(os.path.join(blessing.uri, file_name), text)
        logging.info("ModelRefresher: %s", report.to_json())
