"""From the options of the command line to a server: reads the files that they name."""

import argparse

import tensorflow as tf

from serving.development_server.batching import BatchingParameters
from serving.development_server.credentials import server_credentials
from serving.development_server.model_config import (
    DEFAULT_METRICS_PATH,
    read_message,
    single_model,
)
from serving.development_server.server import DevelopmentServer


def server_from_options(options: argparse.Namespace) -> DevelopmentServer:
    """Returns the server that `command_line.parse` describes, not started yet.

    Raises:
        ConfigError: If a file cannot be read or is wrong.
    """
    if options.model_config_file is not None:
        config = read_message(options.model_config_file, "ModelServerConfig", "--model_config_file")
    else:
        config = single_model(options.model_name, options.model_base_path)
    return DevelopmentServer(
        config,
        host=options.host,
        port=options.port,
        rest_port=options.rest_api_port,
        config_file=options.model_config_file,
        config_poll_seconds=options.model_config_file_poll_wait_seconds,
        poll_seconds=options.file_system_poll_wait_seconds,
        startup_seconds=options.startup_seconds,
        threads=options.threads,
        max_message_bytes=options.max_message_bytes,
        rest_timeout_seconds=options.rest_api_timeout_in_ms / 1000,
        credentials=(
            None if options.ssl_config_file is None else server_credentials(options.ssl_config_file)
        ),
        batching=_batching(options),
        metrics_path=_metrics_path(options),
        warm_up=options.enable_model_warmup,
        health=options.enable_grpc_healthcheck_service,
        allow_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
        channel_arguments=options.grpc_channel_arguments,
        session_config=tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism or 0,
            inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism or 0,
        ),
    )


def _batching(options: argparse.Namespace) -> BatchingParameters | None:
    if not options.enable_batching:
        return None
    if options.batching_parameters_file is None:
        return BatchingParameters()
    flag = "--batching_parameters_file"
    message = read_message(options.batching_parameters_file, "BatchingParameters", flag)
    where = f"{flag}: {options.batching_parameters_file}"
    return BatchingParameters.from_message(message, where)


def _metrics_path(options: argparse.Namespace) -> str | None:
    if options.monitoring_config_file is None:
        return None
    flag = "--monitoring_config_file"
    prometheus = read_message(
        options.monitoring_config_file, "MonitoringConfig", flag
    ).prometheus_config
    return (prometheus.path or DEFAULT_METRICS_PATH) if prometheus.enable else None
