"""Connections of the HTTP server: how many there are, of which client address, and how long each waits for a request.

A connection counts from its acceptance, before the handshake of TLS, until its socket is closed. A connection is busy from the
head of a request to the end of the answer, and as a WebSocket until its end. Otherwise the connection waits: in the handshake,
between requests, in half a head, or in a body that is not needed any more. A connection waits HEAD_S at most, and ANSWER_S for a
client that takes the end of an answer. Where there are too many connections, the one that has waited longest makes room for a new
one: silent connections keep no other caller out. uvicorn itself limits neither connections by address nor the time of a request's
head.

Of a connection only READ_BYTES are read at a time, besides the rest of a body or chunk whose length is known: chunks and frames may
have one byte each, and the parsers, which are Python, would hold all others for seconds.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from gateway.api.http_callers import host_key

MAX_CONNECTIONS: Final = 256
"""Most connections at the same time. A further connection is closed, if all others are busy."""
MAX_CONNECTIONS_OF_HOST: Final = 128
"""Most connections of one client address at the same time, except of the proxies of the settings."""
HEAD_S: Final = 20.0
"""Seconds in which a connection sends the head of its first request, and after each answer the head of the next request."""
ANSWER_S: Final = 60
"""Seconds after which a connection is closed whose client takes nothing of an answer, or takes the last part too slowly."""
SOCKET_BYTES: Final = 256 << 10
"""Bytes that the kernel keeps for the client of a WebSocket: a few live frames. Without a limit, it keeps seconds of frames for a
slow client."""
READ_BYTES: Final = 1 << 10
"""Most bytes of heads, chunks or frames that are read at a time. With one byte of content each, the parsers take about 10 ms."""
_BODY_BYTES: Final = 256 << 10
"""Most bytes of a body or chunk that are read at a time."""
_POLL_S: Final = 0.25


class Connections:
    """The open connections of one HTTP server. Used from one event loop.

    Args:
        proxies: networks of proxies, which bring the connections of many clients.
    """

    def __init__(self, proxies: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self.buffer = memoryview(bytearray(_BODY_BYTES))
        """Takes the bytes of one read, of any connection."""
        self._proxies = proxies
        self._open: dict[Any, _Accepted] = {}

    def listening(self, server: socket.socket) -> socket.socket:
        """Return a listening socket whose connections count here. The argument is used up."""
        return _Listening(self, server.detach())

    def of(self, peer: Any) -> _Accepted | None:
        """Return the connection of a client address and port; None: the connection counts no more."""
        return self._open.get(peer)

    async def watch(self) -> None:
        """Close connections that wait for too long, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            now = time.monotonic()
            for accepted in [*self._open.values()]:
                if not accepted.is_busy and now - accepted.since > accepted.longest_wait_s:
                    self._end(accepted)

    def admit(self, accepted: _Accepted) -> bool:
        """Count a new connection and return True, if there is room or a waiting connection makes room."""
        of_host = Counter(other.host for other in self._open.values())
        over_share = of_host[accepted.host] >= MAX_CONNECTIONS_OF_HOST and not self._is_proxy(accepted.peer[0])
        if over_share or len(self._open) >= MAX_CONNECTIONS:
            waiting = [other for other in self._open.values() if not other.is_busy]
            if over_share:
                waiting = [other for other in waiting if other.host == accepted.host]
            # Addresses with many connections make room before addresses with few.
            longest = min(waiting, key=lambda other: (-of_host[other.host], other.since), default=None)
            if longest is None:
                return False
            self._end(longest)
        self._open[accepted.peer] = accepted
        return True

    def forget(self, accepted: _Accepted) -> None:
        """Count a connection no more."""
        if self._open.get(accepted.peer) is accepted:
            del self._open[accepted.peer]

    def _end(self, accepted: _Accepted) -> None:
        self.forget(accepted)
        accepted.end()

    def _is_proxy(self, host: str) -> bool:
        with suppress(ValueError):
            address = ip_address(host.partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            return any(address in network for network in self._proxies)
        return False


class _Accepted(socket.socket):
    """Socket of one connection, which counts until its end.

    Attributes:
        peer: address and port of the client.
        host: what stands for the client address.
        since: instant of `time.monotonic()` since which the connection waits; without meaning for a busy connection.
        connection: the connection over the socket; None: the handshake of TLS goes on.
    """

    def __init__(self, connections: Connections, handle: int, peer: Any) -> None:
        super().__init__(fileno=handle)
        self.peer = peer
        self.host = host_key(peer[0])
        self.since = time.monotonic()
        self.connection: HttpConnection | None = None
        self._connections = connections

    @property
    def is_busy(self) -> bool:
        """Whether a request is answered."""
        return self.connection is not None and self.connection.is_answering

    @property
    def longest_wait_s(self) -> float:
        """Seconds that the connection may wait now."""
        return ANSWER_S if self.connection is not None and self.connection.is_sending else HEAD_S

    def end(self) -> None:
        """Close the connection at once."""
        if self.connection is not None:
            self.connection.transport.abort()
            return
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._connections.forget(self)
        super().close()


class _Listening(socket.socket):
    """Listening socket that refuses connections beyond the limits."""

    def __init__(self, connections: Connections, handle: int) -> None:
        super().__init__(fileno=handle)
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises:
            ConnectionAbortedError: there is no room for the connection. asyncio goes on with the next one.
        """
        plain, peer = super().accept()
        accepted = _Accepted(self._connections, plain.detach(), peer)
        if not self._connections.admit(accepted):
            accepted.close()
            raise ConnectionAbortedError
        with suppress(OSError):
            # The kernel ends connections whose client takes nothing, or is gone without a word: uvicorn would wait for ever.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ANSWER_S * 1000)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ANSWER_S)
        return accepted, peer


def connection_classes(connections: Connections) -> tuple[type[HttpConnection], type[LiveConnection]]:
    """Return the classes of the connections of one server and of their WebSockets, for uvicorn."""

    class Counted(HttpConnection):
        counted_by = connections

    class CountedSocket(LiveConnection):
        counted_by = connections

    return Counted, CountedSocket


class _Reading(asyncio.BufferedProtocol):
    """Protocol that is given few bytes at a time."""

    counted_by: Connections

    @property
    def most_bytes(self) -> int:
        """Most bytes of the next read."""
        return READ_BYTES

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what takes the next bytes."""
        return self.counted_by.buffer[: self.most_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that were read."""
        cast(asyncio.Protocol, self).data_received(bytes(self.counted_by.buffer[:nbytes]))


class HttpConnection(H11Protocol, _Reading):
    """Connection that says whether a request is answered, and since when the connection waits."""

    _accepted: _Accepted | None = None
    _is_socket = False

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._accepted = self.counted_by.of(transport.get_extra_info("peername"))
        if self._accepted is not None:
            self._accepted.connection = self

    @property
    def most_bytes(self) -> int:
        """Most bytes of the next read."""
        reader = self.conn._reader
        # What is still to come of a body with a length, or of a chunk.
        expected = getattr(reader, "_remaining", 0) or getattr(reader, "_bytes_in_chunk", 0)
        return max(READ_BYTES, min(expected, _BODY_BYTES))

    @property
    def is_answering(self) -> bool:
        """Whether a request is answered, or the connection is a WebSocket, whose application ends it."""
        cycle: Any = self.cycle
        return self._is_socket or (cycle is not None and not cycle.response_complete)

    @property
    def is_sending(self) -> bool:
        """Whether a part of an answer waits for the client."""
        return self.transport.get_write_buffer_size() > 0

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Become a WebSocket. The kernel keeps little for a client that takes frames slowly: further frames are left out."""
        try:
            dict(self.headers)[b"host"].decode("idna").encode("idna")
        except UnicodeError:  # wsproto decodes the name, and uvicorn does not expect this error
            self.send_400_response("Invalid Host header")
            return
        self._is_socket = True
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        super().handle_websocket_upgrade(event)

    def end_socket(self) -> None:
        """Begin to wait for the client of a WebSocket to take the last messages."""
        self._is_socket = False
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        if self._accepted is not None:
            self._accepted.since = time.monotonic()


class LiveConnection(WSProtocol, _Reading):
    """WebSocket over an HttpConnection, which counts as busy until the application has ended."""

    def handle_connect(self, event: Any) -> None:
        """Begin the handshake. `Host` stays as the client sent it: wsproto decodes international names."""
        super().handle_connect(replace(event, host=event.host.encode("idna").decode("ascii")))

    async def run_asgi(self) -> None:
        """Run the application."""
        try:
            await super().run_asgi()
        finally:
            accepted = self.counted_by.of(self.transport.get_extra_info("peername"))
            if accepted is not None and accepted.connection is not None:
                accepted.connection.end_socket()
