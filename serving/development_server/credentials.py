"""TLS and mutual TLS, from the file of `--ssl_config_file`."""

from pathlib import Path

import grpc

from bivrec_contract.errors import ConfigError
from serving.development_server.model_config import read_message

_FLAG = "--ssl_config_file"


def server_credentials(path: Path) -> grpc.ServerCredentials:
    """Returns the server's credentials.

    Args:
        path: An `SSLConfig` in text form. It holds the PEM texts themselves, not file names.

    Raises:
        ConfigError: If the file cannot be read or lacks a part.
    """
    config = read_message(path, "SSLConfig", _FLAG)
    for name in ("server_key", "server_cert"):
        if not getattr(config, name).strip().startswith("-----BEGIN"):
            raise ConfigError(f"{_FLAG}: {path}: {name} must be a PEM text, -----BEGIN ...")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"{_FLAG}: {path}: client_verify needs custom_ca, the authority that signs the "
            f"clients' certificates"
        )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
