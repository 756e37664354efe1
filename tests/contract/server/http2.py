"""Callers that send half a message and go no further, which no library of gRPC does: HTTP/2 frames by hand."""

import asyncio
import contextlib
import struct
from collections.abc import Iterable
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_UNKNOWN = 0x77
_END_OF_STREAM, _ACKNOWLEDGED, _END_OF_HEADERS = 1, 1, 4
_INITIAL_WINDOW = 4
_CHUNK = bytes(16384)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    """Return a header that is not in any table of HPACK. Both texts have at most 126 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class HalfSender:
    """One connection whose calls never end their first message.

    Attributes:
        ended: calls that the server has ended, by the number of their stream.
        closed: whether the server has closed the connection.
        piece_bytes: most bytes of a message in one frame.
        filling_bytes: bytes of a frame that the server ignores, sent after every piece; 0: no such frame.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ended: set[int] = set()
        self.closed = False
        self.piece_bytes, self.filling_bytes = len(_CHUNK), 0
        self._reader, self._writer = reader, writer
        self._initial_window = self._window = 65535
        self._windows: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._moved = asyncio.Event()
        self._ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, address: str, *, source: str = "127.0.0.1") -> Self:
        """Connect to HOST:PORT.

        Args:
            source: address of this machine that the connection comes from.

        Raises:
            ConnectionRefusedError: the server closed the connection before it sent its settings.
        """
        host, _, port = address.rpartition(":")
        sender = cls(*await asyncio.open_connection(host, int(port), local_addr=(source, 0)))
        sender._writer.write(_PREFACE + _frame(_SETTINGS, 0, 0))
        async with asyncio.timeout(30):
            await sender._ready.wait()
        if sender.closed:
            await sender.close()
            raise ConnectionRefusedError(address)
        return sender

    def call(self, path: str, *, num_bytes: int, token: str = "") -> int:
        """Begin a call with a message that says to have `num_bytes`. Return the number of the stream."""
        stream = 2 * len(self._windows) + 1
        headers = [(b":path", path.encode()), (b":authority", b"localhost"), (b"content-type", b"application/grpc")]
        headers += [(b"te", b"trailers")] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
        # The first two bytes are `:method: POST` and `:scheme: http` of HPACK's static table.
        block = b"\x83\x86" + b"".join(_header(name, value) for name, value in headers)
        prefix = b"\0" + struct.pack(">I", num_bytes)
        self._writer.write(_frame(_HEADERS, _END_OF_HEADERS, stream, block) + _frame(_DATA, 0, stream, prefix))
        self._windows[stream] = self._initial_window - len(prefix)
        self._window -= len(prefix)
        self._left[stream] = num_bytes - 1
        return stream

    def whole_call(self, path: str, message: bytes = b"", *, token: str = "") -> int:
        """Begin a call and send its one message whole."""
        stream = self.call(path, num_bytes=len(message), token=token)
        self._writer.write(_frame(_DATA, _END_OF_STREAM, stream, message))
        self._left[stream] = 0
        return stream

    async def send(self, seconds: float) -> None:
        """Send as much of the messages as the server takes, but never the last byte, for some time or until all calls are ended."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while not self.closed and self._left.keys() - self.ended:
                    sent = [self._send_some(stream) for stream in self._left.keys() - self.ended]
                    if not any(sent):
                        self._moved.clear()
                        await self._moved.wait()
                    await self._writer.drain()
                    await asyncio.sleep(0)

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _send_some(self, stream: int) -> bool:
        size = min(self.piece_bytes, self._window, self._windows[stream], self._left[stream])
        if size > 0:
            self._writer.write(_frame(_DATA, 0, stream, _CHUNK[:size]))
            if self.filling_bytes:
                self._writer.write(_frame(_UNKNOWN, 0, 0, bytes(self.filling_bytes)))
            self._window -= size
            self._windows[stream] -= size
            self._left[stream] -= size
        return size > 0

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)
                self._moved.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            self._moved.set()
            self._ready.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACKNOWLEDGED:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW:
                    self._windows = {number: window + value - self._initial_window for number, window in self._windows.items()}
                    self._initial_window = value
            self._writer.write(_frame(_SETTINGS, _ACKNOWLEDGED, 0))
            self._ready.set()
        elif kind == _PING and not flags & _ACKNOWLEDGED:
            self._writer.write(_frame(_PING, _ACKNOWLEDGED, 0, payload))
        elif kind == _WINDOW:
            more = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if stream == 0:
                self._window += more
            elif stream in self._windows:
                self._windows[stream] += more
        elif kind == _RESET or (kind in (_HEADERS, _DATA) and flags & _END_OF_STREAM):
            self.ended.add(stream)


async def close_all(senders: Iterable[HalfSender]) -> None:
    """Close connections."""
    for sender in senders:
        await sender.close()
