"""What can go wrong when a model server is called, and what to do about it."""

import grpc

from bivrec_contract.errors import BivrecError


class ServingError(BivrecError):
    """A call to a model server failed.

    Attributes:
        code: The gRPC status code.
        target: The address that was called.
        advice: What to do about it.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode, target: str, advice: str):
        super().__init__(f"{target}: {code.name}: {message}\n{advice}")
        self.code = code
        self.target = target
        self.advice = advice


class ModelNotFound(ServingError):
    """The server runs, but does not serve the model or the version asked for."""


class InvalidRequest(ServingError, ValueError):
    """The request can never succeed as it stands: an argument, input or signature is wrong."""


class DeadlineExceeded(ServingError, TimeoutError):
    """The answer did not arrive in time."""


class ServerUnavailable(ServingError, ConnectionError):
    """Nothing answers at the address, or the connection could not be made secure."""


class UnexpectedAnswer(ServingError):
    """The server answered something that no model of this project would."""


_UNAVAILABLE = (
    ServerUnavailable,
    "See whether the server runs and listens at this address; wait_until_ready() waits for "
    "one that is starting.",
)
_TLS_ADVICE = (
    "The connection could not be encrypted: compare the certificates, keys and server_name of "
    "TlsOptions with those of the server."
)
_ADVICE: dict[grpc.StatusCode, tuple[type[ServingError], str]] = {
    grpc.StatusCode.NOT_FOUND: (
        ModelNotFound,
        "Check the model name; status() tells which versions the server has loaded.",
    ),
    grpc.StatusCode.INVALID_ARGUMENT: (
        InvalidRequest,
        "metadata() tells the inputs, dtypes and shapes of every signature.",
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (
        InvalidRequest,
        "metadata() tells which signatures the model has.",
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        DeadlineExceeded,
        "Give the client a longer timeout, send fewer histories at a time, or see whether the "
        "server is overloaded.",
    ),
    grpc.StatusCode.UNAVAILABLE: _UNAVAILABLE,
    # The client cancels nothing itself: a server that shuts down does, for a late new request.
    grpc.StatusCode.CANCELLED: _UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        ServingError,
        "Send fewer histories at a time, or ask for fewer items.",
    ),
}


def from_rpc_error(error: grpc.RpcError, target: str) -> ServingError:
    """Returns the exception for a failed call.

    Args:
        error: As raised by a stub; it carries code and details.
        target: The address that was called.
    """
    code, details = error.code(), error.details() or "the server gave no reason"
    kind, advice = _ADVICE.get(
        code, (ServingError, "The log of the server tells more about what happened there.")
    )
    if kind is ServerUnavailable and "handshake" in details.lower():
        advice = _TLS_ADVICE
    return kind(details, code=code, target=target, advice=advice)
