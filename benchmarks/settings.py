"""What a model is run with: the pipeline's configuration, what it has of its own, and changes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from bivrec_tf.config import ModelConfig, TrainingConfig
from components.configuration import describe_validation_error

HERE = Path(__file__).parent
PARTS = ("model", "training")
DEFAULT_PROTOCOL = "leave_one_out"
"""Of a data set whose configuration names none."""


def read_settings(
    name: str, changes: tuple[str, ...] = (), model: str = "", file: Path | None = None
) -> dict[str, dict]:
    """Reads the settings of a model on a data set, and applies `a.b=value` to them.

    Args:
      name: The data set, whose `configs/NAME.yaml` is read, if there is one, and what
        `benchmarks/configs/NAME.yaml` says that a model has of its own.
      changes: As in `model.dimension=64`; of `model` and `training`.
      model: The model's name.
      file: Read in place of both.

    Returns:
      `model` and `training`, and the `protocol` of `sequences`, where files or changes have them.

    Raises:
      click.UsageError: A change is none, or of something else.
    """
    found = _read_yaml(file or HERE.parent / "configs" / f"{name}.yaml")
    settings = {part: dict(found[part]) for part in PARTS if part in found}
    own = {} if file else _read_yaml(HERE / "configs" / f"{name}.yaml").get(model, {})
    for part, values in own.items():
        settings[part] = {**settings.get(part, {}), **values}
    for change in changes:
        path, separator, value = change.partition("=")
        first, *folders = path.split(".")
        if not separator or not folders or first not in PARTS:
            raise click.UsageError(
                f"--set {change}: expected model.NAME=VALUE or training.NAME=VALUE, as in "
                "model.dimension=64"
            )
        target = settings.setdefault(first, {})
        *folders, last = folders
        for folder in folders:
            target = target.setdefault(folder, {})
            if not isinstance(target, dict):
                raise click.UsageError(f"--set {change}: {folder} has no settings below it")
        target[last] = yaml.safe_load(value)
    if "protocol" in found.get("sequences", {}):
        settings["protocol"] = found["sequences"]["protocol"]
    return settings


def _read_yaml(file: Path) -> dict:
    return (yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}


def validated(settings: dict, seed: int) -> tuple[ModelConfig, TrainingConfig]:
    """Returns settings as the model and training read them.

    Raises:
      click.UsageError: There is no such setting, or it cannot have such a value.
    """
    try:
        return (
            ModelConfig.model_validate(settings.get("model", {})),
            TrainingConfig.model_validate({**settings.get("training", {}), "seed": seed}),
        )
    except ValidationError as error:
        # `title` is the class; of a change in `--set` its name says more.
        part = "model" if error.title == ModelConfig.__name__ else "training"
        raise click.UsageError(describe_validation_error(part, error)) from error


def leaves(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every setting with its path, as `--set` names it."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
