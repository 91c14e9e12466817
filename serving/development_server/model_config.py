"""The files that configure the server, read and checked: the same text protos as production's.

`tensorflow-serving-api` carries `ModelServerConfig` but not the messages of the other three files.
They are described here from the public `.proto` files of TensorFlow Serving.
"""

import os
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from tensorflow_serving.config import model_server_config_pb2

from bivrec_contract.errors import ConfigError
from serving.development_server.status import StatusError, invalid_argument

TENSORFLOW_PLATFORM = "tensorflow"
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64_VALUE = ".google.protobuf.Int64Value"
_STRING_VALUE = ".google.protobuf.StringValue"

_MESSAGES: dict[str, list[tuple[str, int, Any]]] = {
    "SSLConfig": [
        ("server_key", 1, _FIELD.TYPE_STRING),
        ("server_cert", 2, _FIELD.TYPE_STRING),
        ("custom_ca", 3, _FIELD.TYPE_STRING),
        ("client_verify", 4, _FIELD.TYPE_BOOL),
    ],
    "PrometheusConfig": [("enable", 1, _FIELD.TYPE_BOOL), ("path", 2, _FIELD.TYPE_STRING)],
    "MonitoringConfig": [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")],
    "BatchingParameters": [
        ("max_batch_size", 1, _INT64_VALUE),
        ("batch_timeout_micros", 2, _INT64_VALUE),
        ("max_enqueued_batches", 3, _INT64_VALUE),
        ("num_batch_threads", 4, _INT64_VALUE),
        ("thread_pool_name", 5, _STRING_VALUE),
        ("allowed_batch_sizes", 6, [_FIELD.TYPE_INT64]),
        ("pad_variable_length_inputs", 7, _FIELD.TYPE_BOOL),
    ],
}
"""Fields by message: name, number, and a scalar type, the name of a message, or [repeated type]."""


def _describe() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/development_server/files.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if isinstance(kind, list):
                field.label, kind = _FIELD.LABEL_REPEATED, kind[0]
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                field.type = kind
    # A pool of its own: another package may bring the real ones.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_wrappers())
    pool.Add(file)
    return pool


def _wrappers() -> descriptor_pb2.FileDescriptorProto:
    from google.protobuf import wrappers_pb2

    file = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(file)
    return file


_POOL = _describe()


def read_message(path: Path, name: str, flag: str) -> Any:
    """Reads a file of one message in text form.

    Args:
        path: The file.
        name: `SSLConfig`, `MonitoringConfig`, `BatchingParameters` or `ModelServerConfig`.
        flag: The flag that named the file, for the error.

    Raises:
        ConfigError: If it cannot be read, or is not such a message; tells the line.
    """
    message: Message
    if name == "ModelServerConfig":
        message = model_server_config_pb2.ModelServerConfig()
    else:
        descriptor = _POOL.FindMessageTypeByName(f"tensorflow.serving.{name}")
        message = message_factory.GetMessageClass(descriptor)()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message, descriptor_pool=_POOL)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag}: {path} cannot be read: {error}") from error
    except text_format.ParseError as error:
        raise ConfigError(
            f"{flag}: {path} is not a {name} in text form: line:column {error}"
        ) from error
    return message


def single_model(name: str, base_path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Returns the configuration that `--model_name` and `--model_base_path` stand for."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path.absolute()), model_platform=TENSORFLOW_PLATFORM
    )
    return config


def check_model_config(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Checks what can be checked without looking at a model.

    Raises:
        StatusError: INVALID_ARGUMENT, with TensorFlow Serving's text where it has one.
    """
    names = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise invalid_argument("A model in the config list has no name")
        if model.name in names:
            raise invalid_argument(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        names.add(model.name)
        if not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
        _check_platform(model)


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    if model.model_type and model.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if not model.model_type and not model.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    if model.model_type not in (
        model_server_config_pb2.MODEL_TYPE_UNSPECIFIED,
        model_server_config_pb2.TENSORFLOW,
    ):
        raise invalid_argument(
            f"ModelServerConfig::model_type choice {model.model_type} not supported."
        )
    if model.model_platform not in ("", TENSORFLOW_PLATFORM):
        raise invalid_argument(
            f"Model {model.name} requests unsupported platform {model.model_platform}"
        )


def as_config_error(error: StatusError, where: str) -> ConfigError:
    """Returns the error for whoever started the server, of a check that a request can fail too."""
    return ConfigError(f"{where}: {error.message}")
