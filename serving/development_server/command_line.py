"""The command line of the development server: TensorFlow Serving's flags, and a few of our own.

Imports no TensorFlow: a wrong argument is then answered at once.
"""

import argparse
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LARGEST_MESSAGE_SIZE = 2**31 - 1

_DESCRIPTION = """\
Serves SavedModels over gRPC and REST like TensorFlow Serving does, on this machine.
For laptops, tests and validation; production runs tensorflow/serving on the same folder.

The base path holds one folder for each version, named by its number:

  models/recommender/1/saved_model.pb
  models/recommender/2/saved_model.pb      <- this one is served

A higher number that appears later is loaded and then replaces it, without an interruption.
When ready, one line goes to standard output:

  READY recommender version=2 port=8500 rest_port=8501

Everything else goes to standard error.
"""

_EPILOG = """\
examples:
  python -m serving.development_server --model_base_path models/recommender --rest_api_port 8501
  python -m serving.development_server --model_config_file models.config

  models.config, several models, versions and labels:
    model_config_list {
      config {
        name: "recommender" base_path: "/models/recommender" model_platform: "tensorflow"
        model_version_policy { specific { versions: 1 versions: 2 } }
        version_labels { key: "stable" value: 1 }
        version_labels { key: "canary" value: 2 }
      }
    }

exit codes:
  0  stopped by SIGTERM or SIGINT, after the requests under way were answered
  2  an argument or a configuration file is wrong, a base path does not exist, or a port is taken
  3  a model has no version that could be loaded in the start-up time
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options; ends the process with exit code 2 if one is wrong.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.development_server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_model_flags(parser.add_argument_group("what is served"))
    _add_address_flags(parser.add_argument_group("where"))
    _add_request_flags(parser.add_argument_group("how requests are answered"))
    _add_life_flags(parser.add_argument_group("start and end"))
    options = parser.parse_args(arguments)
    if options.model_config_file is None:
        if options.model_base_path is None:
            parser.error("one of --model_base_path and --model_config_file is required")
        if not options.model_name:
            parser.error("--model_name must not be empty")
        if not options.model_base_path.is_dir():
            parser.error(f"--model_base_path: no such directory: {options.model_base_path}")
    elif options.model_base_path is not None:
        parser.error("--model_base_path and --model_config_file exclude each other")
    if options.batching_parameters_file is not None and not options.enable_batching:
        parser.error("--batching_parameters_file has no effect without --enable_batching")
    if options.rest_api_port is not None and options.rest_api_port == options.port != 0:
        parser.error("--rest_api_port cannot be same as --port")
    if options.monitoring_config_file is not None and options.rest_api_port is None:
        parser.error("--monitoring_config_file needs --rest_api_port: metrics are served there")
    return options


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model_base_path", type=Path, help="the folder of the version folders")
    add("--model_name", default="recommender", help="the name that requests give [%(default)s]")
    add(
        "--model_config_file",
        type=_file,
        help="a ModelServerConfig in text form: several models, version policies, labels",
    )
    add(
        "--model_config_file_poll_wait_seconds",
        type=_seconds,
        default=0.0,
        help="how often to read that file again; 0 only reads it at the start [%(default)s]",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=_seconds,
        default=1.0,
        help="how often to look for new versions; 0 only looks at the start [%(default)s]",
    )
    add(
        "--allow_version_labels_for_unavailable_models",
        **_SWITCH,
        help="accept a label for a version that is not loaded, if the label is not in use. "
        "Needed for labels in the file that the server starts with",
    )
    add(
        "--enable_model_warmup",
        **{**_SWITCH, "default": True},
        help="run assets.extra/tf_serving_warmup_requests of a version before it is served; "
        "serving.warm_up writes such files [true]",
    )


def _add_address_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on [%(default)s: this machine]")
    add(
        "--port", type=_port, default=8500, help="the gRPC port; 0 takes any free one [%(default)s]"
    )
    add(
        "--rest_api_port",
        type=_rest_port,
        help="the REST port; `any` takes any free one; 0 or nothing for no REST",
    )
    add(
        "--ssl_config_file",
        type=_file,
        help="an SSLConfig in text form: TLS for gRPC, with client_verify mutual TLS. "
        "REST has no TLS",
    )
    add(
        "--monitoring_config_file",
        type=_file,
        help="a MonitoringConfig in text form: Prometheus metrics on the REST port",
    )
    add(
        "--grpc_channel_arguments",
        type=_channel_arguments,
        default=[],
        help="more settings of gRPC, such as grpc.max_connection_age_ms=300000, by commas",
    )
    add(
        "--enable_grpc_healthcheck_service",
        **{**_SWITCH, "default": True},
        help="answer grpc.health.v1.Health [true]",
    )


def _add_request_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        *("--threads", "--grpc_max_threads"),
        type=_positive,
        default=8,
        help="requests answered at a time, gRPC and REST together [%(default)s]",
    )
    add(
        "--max_message_bytes",
        type=_message_size,
        default=64 * 2**20,
        help="the largest request or response, in bytes [%(default)s]",
    )
    add(
        "--rest_api_timeout_in_ms",
        type=_positive,
        default=30000,
        help="how long a client may take to send a request or to take its answer [%(default)s]",
    )
    add("--enable_batching", **_SWITCH, help="run requests that arrive together as one")
    add(
        "--batching_parameters_file",
        type=_file,
        help="a BatchingParameters in text form, such as max_batch_size { value: 64 }",
    )
    add(
        "--tensorflow_intra_op_parallelism",
        type=_positive,
        help="threads within an op [TensorFlow's choice]",
    )
    add(
        "--tensorflow_inter_op_parallelism",
        type=_positive,
        help="ops run at the same time [TensorFlow's choice]",
    )


def _add_life_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--startup_seconds",
        type=_seconds,
        default=30.0,
        help="how long to wait for a first version of every model that loads [%(default)s]",
    )
    add(
        "--shutdown_grace_seconds",
        type=_seconds,
        default=30.0,
        help="how long requests under way may take after SIGTERM [%(default)s]",
    )
    add(
        "--stop_when_stdin_closes",
        action="store_true",
        help="stop when standard input ends: a child then never outlives its parent",
    )


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


_SWITCH: dict[str, Any] = {
    "nargs": "?",
    "const": True,
    "default": False,
    "type": _boolean,
    "metavar": "true|false",
}


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    arguments: list[tuple[str, int | str]] = []
    for each in text.split(","):
        name, separator, value = each.partition("=")
        if not (name and separator and value):
            raise argparse.ArgumentTypeError(f"{each!r} is not of the form name=value")
        arguments.append((name, int(value) if value.removeprefix("-").isdigit() else value))
    return arguments


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {path}")
    return path


def _rest_port(text: str) -> int | None:
    if text == "any":
        return 0
    return _port(text) or None


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port: 0 to 65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _message_size(text: str) -> int:
    size = _positive(text)
    if size > _LARGEST_MESSAGE_SIZE:
        raise argparse.ArgumentTypeError(f"{size} is more than {_LARGEST_MESSAGE_SIZE}")
    return size


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds, 0 or more")
    return seconds
