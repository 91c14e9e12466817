"""How a client reaches its server: retries, encryption and the options of the connection."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import grpc

from bivrec_contract.errors import ConfigError

_LOOPBACK = ("localhost:", "127.0.0.1:", "[::1]:", "ipv4:127.0.0.1:", "dns:///localhost:")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """When a call is tried again: only if the server was unavailable, within the call's deadline.

    Every method of the client only reads, so a call that may have reached the server is safe to
    repeat. The waits grow from `initial_backoff` by `multiplier` to `max_backoff` and are spread at
    random, so that clients do not come back all at once. While more than half of a client's recent
    calls find no server, nothing is tried again: retries must not hold down a server that recovers.
    All of it is done by gRPC itself.

    Attributes:
        attempts: How often a call is tried in all, from 1 (never again) to 5 (gRPC's own limit).
        initial_backoff: Seconds before the second attempt.
        max_backoff: Seconds that a wait is never longer than.
        multiplier: What each wait is longer than the one before by.

    Raises:
        ConfigError: If a value is outside its range.
    """

    attempts: int = 4
    initial_backoff: float = 0.05
    max_backoff: float = 1.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts not in range(1, 6):
            raise ConfigError(f"attempts must be from 1 to 5, not {self.attempts!r}")
        # With a wait of one millisecond gRPC 1.85 never tries again, and waits for the deadline.
        if not 0.01 <= self.initial_backoff <= self.max_backoff:
            raise ConfigError(
                "initial_backoff must be at least 0.01 and at most max_backoff, not "
                f"{self.initial_backoff!r}"
            )
        if self.multiplier < 1:
            raise ConfigError(f"multiplier must be at least 1, not {self.multiplier!r}")

    def service_config(self) -> str:
        """Returns gRPC's service config, JSON."""
        # Where the name stands for several servers, calls go to all of them by turns.
        config: dict = {"loadBalancingConfig": [{"round_robin": {}}]}
        if self.attempts > 1:
            config["methodConfig"] = [
                {
                    "name": [{}],
                    "retryPolicy": {
                        "maxAttempts": self.attempts,
                        "initialBackoff": f"{self.initial_backoff:.3f}s",
                        "maxBackoff": f"{self.max_backoff:.3f}s",
                        "backoffMultiplier": self.multiplier,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ]
            config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 1.0}
        return json.dumps(config)


@dataclasses.dataclass(frozen=True)
class TlsOptions:
    """Encrypts the connection, and proves who is at each end. All files are PEM.

    Attributes:
        root_certificates: The authorities that the server's certificate may come from; None for
            those that gRPC brings along.
        certificate: The client's own certificate, for a server that asks for one (mutual TLS).
        key: Its private key.
        server_name: The name that the server's certificate must hold; None for the host of the
            target.
    """

    root_certificates: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            ConfigError: If a file cannot be read or is no PEM, or one of `certificate` and `key`
                is given without the other.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("mutual TLS needs both a certificate and its key")
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem("root_certificates", self.root_certificates),
            private_key=_read_pem("key", self.key),
            certificate_chain=_read_pem("certificate", self.certificate),
        )


def channel_options(
    target: str, retries: RetryPolicy, tls: TlsOptions | None, max_message_bytes: int
) -> Sequence[tuple[str, int | str]]:
    """Returns the options of a channel to `target`."""
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.service_config", retries.service_config()),
        # A request is kept for the next attempt however large it is.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # A restarted server is found again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A server whose machine has vanished does not hold calls until their deadlines for ever.
        ("grpc.keepalive_time_ms", 300_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if target.startswith(_LOOPBACK):
        # A proxy, set for the outside world, cannot reach this machine's own ports.
        options.append(("grpc.enable_http_proxy", 0))
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _read_pem(name: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise ConfigError(f"{name}: {path} is no PEM file: it holds no line -----BEGIN ...")
    return content
