"""Requests that are no message: answered and counted, not written to the log with a traceback."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.development_server.metrics import Metrics

_MALFORMED = object()


class CheckedHandlers:
    """Stands for the server while a servicer is added to it: `add_..._to_server(servicer, this)`.

    Args:
        server: Where the checked handlers go.
        metrics: Where malformed requests are counted.
    """

    def __init__(self, server: grpc.Server, metrics: Metrics):
        self._server = server
        self._metrics = metrics

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Adds handlers, each behind the check."""
        checked = tuple(_CheckedHandler(handler, self._metrics) for handler in handlers)
        self._server.add_generic_rpc_handlers(checked)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Generated code may announce its methods a second time, unchecked; that is left out."""


class _CheckedHandler(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler, metrics: Metrics):
        self._inner = inner
        self._metrics = metrics
        self._checked: dict[str, grpc.RpcMethodHandler] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if method not in self._checked:
            handler = self._inner.service(handler_call_details)
            if handler is None:  # Not kept: there is no end to what clients may ask for.
                return None
            self._checked[method] = self._check(handler, method)
        return self._checked[method]

    def _check(self, handler: Any, method: str) -> grpc.RpcMethodHandler:
        parse: Callable[[bytes], Any] = handler.request_deserializer
        answer = handler.unary_unary

        def parse_or_mark(message: bytes) -> Any:
            try:
                return parse(message)
            except DecodeError:
                return _MALFORMED

        def answer_or_refuse(request: Any, context: grpc.ServicerContext) -> Any:
            if request is _MALFORMED:
                self._metrics.record_malformed("GRPC")
                context.abort(grpc.StatusCode.INTERNAL, f"the request of {method} is malformed")
            return answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer_or_refuse, parse_or_mark, handler.response_serializer
        )
