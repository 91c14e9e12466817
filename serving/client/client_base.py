"""What the clients for threads and for asyncio share: the connection and its calls."""

from types import ModuleType

from serving.client.calls import RESPONSES, Calls
from serving.client.connection import RetryPolicy, TlsOptions, channel_options


class ClientBase:
    """One connection to one model on one server; a subclass says how a call is waited for.

    Args:
        target: The server's address, like `localhost:8500`.
        model_name: The name under which the server serves the model.
        timeout: How many seconds a call may take, with all its attempts.
        version: The version to call, or None for the newest that is loaded.
        version_label: The label of the version to call, like `stable` or `canary`.
        tls: How the connection is encrypted; None for a connection that is not.
        retries: When a call is tried again; None for never.
        max_message_bytes: The largest request or response.

    Raises:
        ConfigError: If both a version and a label are given, or a certificate cannot be read.
    """

    _transport: ModuleType
    """`grpc` or `grpc.aio`: they open channels alike."""

    def __init__(
        self,
        target: str,
        model_name: str = "recommender",
        timeout: float = 2.0,
        *,
        version: int | None = None,
        version_label: str | None = None,
        tls: TlsOptions | None = None,
        retries: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen
        max_message_bytes: int = 64 * 2**20,
    ):
        self.target = target
        self.model_name = model_name
        self.timeout = timeout
        self._calls = Calls(target, model_name, version, version_label)
        options = channel_options(
            target, retries or RetryPolicy(attempts=1), tls, max_message_bytes
        )
        if tls is None:
            self._channel = self._transport.insecure_channel(target, options)
        else:
            self._channel = self._transport.secure_channel(target, tls.credentials(), options)
        self._methods = {
            method: self._channel.unary_unary(
                method,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response.FromString,
            )
            for method, response in RESPONSES.items()
        }
