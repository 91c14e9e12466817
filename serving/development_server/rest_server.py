"""HTTP for the REST API: one thread a connection, so that no client holds up another."""

import contextlib
import http.server
import io
import logging
import socket
import threading
import time
from http import HTTPStatus
from typing import Any

from serving.development_server.rest_api import Response, RestApi, error_response

_LOGGER = logging.getLogger(__name__)

_MAX_CONNECTIONS = 1000
_STOP_POLL_SECONDS = 0.02
_DISCARD_SECONDS = 2.0
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: 33\r\n\r\n{"error": "too many connections"}'
)


class RestServer:
    """Serves the REST API on an address, from threads of its own.

    Args:
        api: What answers the requests.
        host: The address to listen on.
        port: The port, or 0 for any free one.
        max_body_bytes: The largest body that is read.
        timeout_seconds: How long a client may take to send a request, or to take the answer.

    Attributes:
        port: The port that is listened on.

    Raises:
        OSError: If the address cannot be listened on.
    """

    def __init__(
        self, api: RestApi, host: str, port: int, max_body_bytes: int, timeout_seconds: float
    ):
        self._server = _Server((host, port), api, max_body_bytes, timeout_seconds)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="rest-accept",
            daemon=True,
        )

    def start(self) -> None:
        """Starts to answer. Can be called once."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Refuses new requests, waits for those under way, and stops.

        Args:
            grace_seconds: How long to wait for requests under way before cutting them off.
        """
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.end_connections(grace_seconds)


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    allow_reuse_address = True
    # Two servers on one port would share its requests without anybody noticing.
    allow_reuse_port = False
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], api: RestApi, max_body_bytes: int, timeout_seconds: float
    ):
        self.api = api
        self.max_body_bytes = max_body_bytes
        self.timeout_seconds = timeout_seconds
        self.stopping = False
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, bool] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The base class also looks up the host's name, which can take seconds.
        super(http.server.HTTPServer, self).server_bind()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._connections) >= _MAX_CONNECTIONS
            if not full:
                self._connections[request] = False
        if full:
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_TOO_MANY)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # What the handler does not answer itself is a client that has gone away.
        _LOGGER.debug("connection of %s ended", client_address, exc_info=True)

    def set_busy(self, connection: socket.socket, busy: bool) -> None:
        """Notes whether a request of the connection is under way."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = busy

    def end_connections(self, grace_seconds: float) -> None:
        """Ends idle connections at once, the others when they have their answer."""
        self.stopping = True
        deadline = time.monotonic() + grace_seconds
        while True:
            late = time.monotonic() >= deadline
            with self._lock:
                ended = [each for each, busy in self._connections.items() if late or not busy]
            for connection in ended:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            with self._lock:
                if late or not self._connections:
                    return
            time.sleep(_STOP_POLL_SECONDS)


class _TimedReader(io.RawIOBase):
    """Reads a socket; a whole request must have arrived before the time is over.

    A time-out for each read alone would let a client send one byte at a time for ever.
    """

    def __init__(self, connection: socket.socket, seconds: float):
        self._connection = connection
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Gives the next request its own time."""
        self._deadline = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the request did not arrive in time")
        self._connection.settimeout(remaining)
        return self._connection.recv_into(buffer)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "bivrec-development-server"
    sys_version = ""
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._reader = _TimedReader(self.connection, self.server.timeout_seconds)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        self._reader.restart()
        super().handle_one_request()
        self.server.set_busy(self.connection, False)
        if self.server.stopping:
            self.close_connection = True

    def parse_request(self) -> bool:
        # Called when the first line has arrived.
        self.server.set_busy(self.connection, True)
        return super().parse_request()

    def _answer(self) -> None:
        try:
            body = self._body()
        except TimeoutError:
            self.close_connection = True
            self._respond(error_response(408, "the request's body did not arrive in time"))
            return
        if isinstance(body, Response):
            self.close_connection = True
            self._respond(body)
            self._discard()
            return
        self._respond(self.server.api.handle(self.command, self.path, body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815

    def _body(self) -> bytes | Response:
        """Returns the body, or why it is not read."""
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            return error_response(415, "a compressed body is not supported")
        if self.headers.get("Transfer-Encoding") is not None:
            return error_response(411, "send the body with a Content-Length, not in chunks")
        text = self.headers.get("Content-Length", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            return error_response(400, f"Content-Length is no number of bytes: {text[:20]}")
        length = int(text)
        if length > self.server.max_body_bytes:
            return error_response(
                413,
                f"the body has {length} bytes, at most {self.server.max_body_bytes} are accepted",
            )
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away in the middle of a request")
        return body

    def _discard(self) -> None:
        """Reads what a refused client still sends: closed at once, it would not see the answer."""
        deadline = time.monotonic() + _DISCARD_SECONDS
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < deadline:
                self.connection.settimeout(_DISCARD_SECONDS)
                if not self.connection.recv(65536):
                    return

    def _respond(self, response: Response) -> None:
        self.connection.settimeout(self.server.timeout_seconds)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection or self.server.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers what is no HTTP, in the API's form instead of a page."""
        self.close_connection = True
        self.command = getattr(self, "command", None) or ""
        self.request_version = self.protocol_version  # Else it may stand for one without headers.
        self._respond(error_response(int(code), message or HTTPStatus(code).phrase))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keeps one line per request out of the log unless it is asked for."""
        _LOGGER.debug(format, *arguments)
