"""From an error that an op raised to the status that gRPC sends."""

import contextlib
import logging
import re
from collections.abc import Iterator

import grpc
import tensorflow as tf

from serving.development_server.status import StatusError, internal_error, truncated

_LOGGER = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_GRAPH_ERROR_PREFIX = re.compile(
    r"^Graph execution error:\s+Detected at node.*<stack traces unavailable>\n", re.DOTALL
)
_GRAPH_ERROR_SUFFIX = re.compile(r" \[Op:[^\]]*\]\s*$")


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
