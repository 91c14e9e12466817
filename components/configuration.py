"""Reading of component configurations: pydantic models, with errors that name the key."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bivrec_tf.errors import ConfigError


class ComponentConfig(BaseModel):
    """Base of the components' configurations: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Config = TypeVar("Config", bound=BaseModel)


def parse_config(config_class: type[Config], text: str) -> Config:
    """Returns the configuration that a JSON object describes.

    Raises:
        ConfigError: the text is not valid; the message names every key that is wrong.
    """
    try:
        return config_class.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(config_class.__name__, error)) from error


def describe_validation_error(owner: str, error: ValidationError) -> str:
    """Returns one line for every key that was wrong: where, what was given, what is expected."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(whole)"
        where = f"{owner}, key '{key}'" if owner else f"key '{key}'"
        lines.append(f"{where}: {problem['msg']} (got {problem['input']!r:.120})")
    return "\n".join(lines)
