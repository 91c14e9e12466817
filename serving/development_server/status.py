"""From what went wrong to the status that gRPC sends."""

import contextlib
import logging
import re
from collections.abc import Iterator

import grpc
import tensorflow as tf

_LOGGER = logging.getLogger(__name__)

_MESSAGE_LIMIT_BYTES = 1024
"""TensorFlow Serving cuts messages here too. They travel in HTTP/2 headers, which are limited."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_GRAPH_ERROR_PREFIX = re.compile(
    r"^Graph execution error:\s+Detected at node.*<stack traces unavailable>\n", re.DOTALL
)
_GRAPH_ERROR_SUFFIX = re.compile(r" \[Op:[^\]]*\]\s*$")


class StatusError(Exception):
    """An answer other than OK, with the code and the text that the caller gets."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> StatusError:
    """Returns the error for a request that can never succeed as it stands."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error: tf.errors.OpError) -> StatusError:
    """Returns the status for an error raised by an op: same code, and the op's own message.

    What `Session.run` wraps around that message names functions and files of the export, which
    TensorFlow Serving does not send either.
    """
    return StatusError(*_code_and_message(error))


def tensorflow_code(error: tf.errors.OpError) -> grpc.StatusCode:
    """Returns gRPC's code for an error raised by an op."""
    return _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)


def _code_and_message(error: tf.errors.OpError) -> tuple[grpc.StatusCode, str]:
    message = _GRAPH_ERROR_PREFIX.sub("", error.message)
    message = _GRAPH_ERROR_SUFFIX.sub("", message)
    return tensorflow_code(error), message


def internal_error(method: str, error: Exception) -> StatusError:
    """Logs a failure that is ours, with its traceback, and returns what the caller gets of it."""
    _LOGGER.error("%s failed unexpectedly", method, exc_info=error)
    return StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def errors_as_status(context: grpc.ServicerContext, method: str) -> Iterator[None]:
    """Runs the body of an RPC handler and ends the call with a status if the body fails."""
    # Only code and text are kept: an exception in a variable of a frame that its own traceback
    # holds is a cycle, and with it the request would stay in memory until the next collection.
    try:
        yield
    except StatusError as error:
        code, message = error.code, error.message
    except tf.errors.OpError as error:
        code, message = _code_and_message(error)
    except Exception as error:  # The outermost frame: a bug must reach the log and the caller.
        code, message = grpc.StatusCode.INTERNAL, internal_error(method, error).message
    else:
        return
    _LOGGER.debug("%s: %s %s", method, code.name, message)
    context.abort(code, truncated(message))


def truncated(message: str) -> str:
    """Returns the message, cut where TensorFlow Serving cuts it too."""
    encoded = message.encode("utf-8", errors="replace")
    if len(encoded) <= _MESSAGE_LIMIT_BYTES:
        return message
    return encoded[:_MESSAGE_LIMIT_BYTES].decode("utf-8", errors="ignore") + "...TRUNCATED"
