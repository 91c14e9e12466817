"""The TFX door: model and training run in, infrastructure blessing out."""

import logging
import os
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.serving_validator.offline import OFFLINE_ANSWERS, read_offline_answers
from components.serving_validator.validate import validate_serving

MODEL_KEY = "model"
MODEL_RUN_KEY = "model_run"
TOLERANCE_KEY = "tolerance"
BLESSING_KEY = "blessing"
VERDICT_PROPERTY = "verdict"
VERDICT_FILE = "verdict.json"


class Executor(BaseExecutor):
    """Validates the served model."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Blesses the model if served and offline answers agree.

        Raises:
            DataError: the training run holds no offline answers.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        run = artifact_utils.get_single_instance(input_dict[MODEL_RUN_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        verdict = validate_serving(
            path_utils.serving_model_path(model.uri),
            read_offline_answers(os.path.join(run.uri, OFFLINE_ANSWERS)),
            exec_properties[TOLERANCE_KEY],
        )
        for difference in verdict.differences:
            logging.error("ServingValidator: served and offline answers differ: %s", difference)
        # The names that TFX's InfraValidator uses, and its Pusher asks for.
        name = "INFRA_BLESSED" if verdict.passed else "INFRA_NOT_BLESSED"
        blessing.set_int_custom_property("blessed", int(verdict.passed))
        blessing.set_string_custom_property(VERDICT_PROPERTY, verdict.to_json())
        for file_name, text in ((name, ""), (VERDICT_FILE, verdict.to_json())):
            with tf.io.gfile.GFile(os.path.join(blessing.uri, file_name), "w") as file:
                file.write(text)
        logging.info("ServingValidator: %s", verdict.to_json())
