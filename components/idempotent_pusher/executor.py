"""The TFX door: the standard Pusher's executor, behind a look at what is there already."""

import json
import logging
import os
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.components.pusher import executor as pusher_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from components.idempotent_pusher.model_fingerprint import fingerprint


def newest_version(base_directory: str) -> str | None:
    """Returns the folder of the newest version under a base path, if there is any."""
    if not tf.io.gfile.isdir(base_directory):
        return None
    versions = [name.strip("/") for name in tf.io.gfile.listdir(base_directory)]
    versions = [name for name in versions if name.isdigit()]
    if not versions:
        return None
    return os.path.join(base_directory, max(versions, key=int))


class Executor(pusher_executor.Executor):
    """Pushes a blessed model unless the newest version served is that model already."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes, or names the version that is there."""
        destination = json.loads(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY])
        newest = newest_version(destination["filesystem"]["base_directory"])
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        model_path = path_utils.serving_model_path(model.uri)
        if (
            newest is not None
            and self.CheckBlessing(input_dict)
            and fingerprint(newest) == fingerprint(model_path)
        ):
            logging.info("Pusher: %s is this model already; nothing was pushed", newest)
            pushed = artifact_utils.get_single_instance(
                output_dict[standard_component_specs.PUSHED_MODEL_KEY]
            )
            self._MarkPushed(
                pushed, pushed_destination=newest, pushed_version=os.path.basename(newest)
            )
            return
        super().Do(input_dict, output_dict, exec_properties)
