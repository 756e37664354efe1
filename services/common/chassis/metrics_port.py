"""Port of a server's Prometheus metrics over HTTP: few connections at the same time, and little time for each.

`prometheus_client.start_http_server` starts a thread per connection, and waits for a request as long as the connection is open.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app
from prometheus_client.registry import CollectorRegistry

MAX_CONNECTIONS: Final = 32
"""Most connections at the same time, each with a thread. A further connection is closed."""
MAX_CONNECTIONS_OF_HOST: Final = 8
"""Most connections of one client address at the same time, so that one host cannot take all places."""
CONNECTION_S: Final = 10.0
"""Seconds after which a connection is closed, whatever it does. A connection has one request."""
_LOOK_EVERY_S: Final = 0.5


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: a scrape is no news."""


class _MetricsServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    # Connections that wait to be accepted. By default five, and a further client tries again after a second.
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        host = host.strip("[]")
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # For each open connection, the address of the client and the instant of `time.monotonic()` at which the server closes it.
        self._open: dict[socket.socket, tuple[str, float]] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        host = str(client_address[0])
        with self._lock:
            of_host = sum(1 for other, _ in self._open.values() if other == host)
            if len(self._open) >= MAX_CONNECTIONS or of_host >= MAX_CONNECTIONS_OF_HOST:
                return False
            self._open[request] = (host, time.monotonic() + CONNECTION_S)
        return True

    def service_actions(self) -> None:
        """Wake the threads whose connections are over the time."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, (_, end) in self._open.items() if now > end]
        for request in late:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and end the open connections, whose time nothing measures any more."""
        super().server_close()
        with self._lock:
            still_open = list(self._open)
        for request in still_open:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that goes away, or is late, is no fault of the server."""


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve metrics in threads. Return a function that ends the server.

    Args:
        registry: the metrics.
        host: address to listen on.
        port: port to listen on.

    Raises:
        OSError: the address is in use or cannot be used.
    """
    server = _MetricsServer(host, port)
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_EVERY_S,), name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
