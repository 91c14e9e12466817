"""Answers other than OK. Without TensorFlow: checking configuration files needs no more."""

import logging

import grpc

_LOGGER = logging.getLogger(__name__)

_MESSAGE_LIMIT_BYTES = 1024
"""TensorFlow Serving cuts messages here too. They travel in HTTP/2 headers, which are limited."""


class StatusError(Exception):
    """An answer other than OK, with the code and the text that the caller gets."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> StatusError:
    """Returns the error for a request that can never succeed as it stands."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def internal_error(method: str, error: Exception) -> StatusError:
    """Logs a failure that is ours, with its traceback, and returns what the caller gets of it."""
    _LOGGER.error("%s failed unexpectedly", method, exc_info=error)
    return StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def truncated(message: str) -> str:
    """Returns the message, cut where TensorFlow Serving cuts it too."""
    encoded = message.encode("utf-8", errors="replace")
    if len(encoded) <= _MESSAGE_LIMIT_BYTES:
        return message
    return encoded[:_MESSAGE_LIMIT_BYTES].decode("utf-8", errors="ignore") + "...TRUNCATED"
