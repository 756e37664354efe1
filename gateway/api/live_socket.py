"""Live streams for browsers: a WebSocket at `/v1/live` of the HTTP server, over one call of the RPC Live of this process.

The client sends:

* a text, the LiveConfig in protobuf's JSON;
* after `{"ready": true}`, binary messages with the sound: 16-bit PCM, little-endian, channels interleaved. An empty message ends
  the sound.

The server sends:

* the text `{"ready": true}`, when sound may come, and with the first frame of a stream that is disclosed the text
  `{"disclosure": ...}`, the LiveDisclosure;
* for each frame FRAME_HEAD, then the picture as JPEG;
* before it closes the socket for an error, the text `{"error": ...}` as the other routes answer it.

Codes of the close: 1000 after the last frame; 4000 and the status of HTTP for an error, such as 4429; 1009 for a message of more
than MAX_MESSAGE_BYTES. A handshake without a token, or of a page of another origin, is refused with 401 or 403.

Tokens, limits, consent, admission, audit and deadline are those of the RPC, whose flow control holds in both directions: no sound
is read that the RPC does not take, and no frame is asked for while the client does not take the one before.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final, cast

import grpc
import grpc.aio
import numpy as np
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from dubstage.client import rpcs
from dubstage.client.aio import AsyncConnection
from dubstage.client.gateway import live_first_sample
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.http_bodies import json_object
from gateway.api.http_callers import Shares
from gateway.api.resources import fill_message, json_of
from gateway.ui.session import Sessions
from services.common.errors import DubstageError, InvalidRequestError, StageDeadlineExceededError
from services.common.server.auth import AUTHORIZATION_KEY

PATH: Final = "/v1/live"
MAX_MESSAGE_BYTES: Final = 64 << 10
"""Largest message of a client, bytes: 0.7 s of sound at 48 kHz."""
FRAME_HEAD: Final = struct.Struct("<II")
"""Head of a frame: its number n, and its FrameReason. The frame is shown at n / 25 s of the sound."""
MOST_SOCKETS: Final = 32
MOST_SOCKETS_OF_CALLER: Final = 16
CONFIG_S: Final = 10.0
"""Seconds in which the config comes."""
FRAME_S: Final = 20.0
"""Seconds in which a client takes a frame."""
QUALITY: Final = 90
"""Quality of the pictures if the config names none."""
_MOST_REASON_BYTES: Final = 123

Check = Callable[[HTTPConnection, str], tuple[object, str]]
"""Checks the authorization of a request, and returns metadata and what stands for the caller. Raises as HttpCallers.check."""
Problem = Callable[[Exception], tuple[int, dict[str, Any], dict[str, str]]]
"""Returns status of HTTP, JSON body and headers for a DubstageError or an AioRpcError."""


class _Calls(AsyncConnection):
    """Calls whose errors stay those of gRPC, with all details."""

    def _error(self, error: grpc.RpcError) -> Exception:
        return error


class LiveSocket:
    """Answers the WebSockets of an HTTP server.

    Args:
        channel: channel to the gRPC server of this process.
        deadline_s: seconds that a stream may take.
        sessions: the sessions of browsers.
        check: checks who calls.
        problem: returns the answer for an error.
    """

    def __init__(self, channel: grpc.aio.Channel, deadline_s: float, sessions: Sessions, check: Check, problem: Problem) -> None:
        self._channel, self._deadline_s, self._sessions, self._check, self._problem = channel, deadline_s, sessions, check, problem
        self._open = Shares(MOST_SOCKETS, MOST_SOCKETS_OF_CALLER, "WebSockets at the same time")

    def routes(self) -> list[WebSocketRoute]:
        """Return the route of live streams, and the one that refuses all other WebSockets."""
        return [WebSocketRoute(PATH, self._answer), WebSocketRoute("/{path:path}", _missing)]

    async def _answer(self, socket: WebSocket) -> None:
        if refusal := self._sessions.refusal(socket):
            await _deny(socket, 403, "PERMISSION_DENIED", refusal)
            return
        try:
            authorization = self._sessions.authorization(socket)
            _, caller = self._check(socket, authorization)
            await socket.accept()
            with self._open.taken(caller):
                await self._show(socket, await _config(socket), authorization)
            await socket.close()
        except (DubstageError, grpc.aio.AioRpcError) as error:
            await self._refuse(socket, error)
        except (WebSocketDisconnect, TimeoutError):
            # The client is gone, or takes nothing: nobody is left to tell. uvicorn closes the connection.
            return

    async def _show(self, socket: WebSocket, config: pb.LiveConfig, authorization: str) -> None:
        """Send the frames of one call of the RPC, which ends with this method, however it ends.

        Raises:
            grpc.aio.AioRpcError: the call failed.
            InvalidRequestError: a message is no sound.
            WebSocketDisconnect, TimeoutError: the client went away, or does not take a frame.
        """
        metadata = ((AUTHORIZATION_KEY, authorization),) if authorization else ()
        calls = _Calls(PATH, self._channel, metadata, self._deadline_s)
        async with aclosing(calls.stream(rpcs.gateway.LIVE, _requests(socket, config), once_ready=True)) as frames:
            async for frame in frames:
                if frame.HasField("disclosure"):
                    await _send(socket, {"disclosure": json_of(frame.disclosure)})
                await _sent(socket.send_bytes(FRAME_HEAD.pack(frame.frame_index, frame.reason) + frame.image.data))

    async def _refuse(self, socket: WebSocket, error: Exception) -> None:
        """Tell an error to a client that may be gone."""
        number, body, headers = self._problem(error)
        with suppress(WebSocketDisconnect, TimeoutError):
            if socket.application_state is WebSocketState.CONNECTING:
                await _sent(socket.send_denial_response(JSONResponse(body, number, headers)))
                return
            await _send(socket, body)
            text = body["error"]["message"].encode()[:_MOST_REASON_BYTES].decode(errors="ignore")
            await _sent(socket.close(4000 + number, text))


async def _missing(socket: WebSocket) -> None:
    await _deny(socket, 404, "NOT_FOUND", f"there is no WebSocket {socket.scope['path'][:200]}: live streams are at {PATH}")


async def _deny(socket: WebSocket, number: int, name: str, text: str) -> None:
    body = {"error": {"code": number, "status": name, "message": text, "details": []}}
    await socket.send_denial_response(JSONResponse(body, number))


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    await _sent(socket.send_text(json.dumps(message)))


async def _sent(sending: Awaitable[None]) -> None:
    """Wait until a message is sent.

    Raises:
        WebSocketDisconnect: the client is gone, or uvicorn has closed the socket for a message that is too large.
        TimeoutError: the client takes nothing.
    """
    try:
        async with asyncio.timeout(FRAME_S):
            await sending
    except RuntimeError:
        raise WebSocketDisconnect from None


async def _config(socket: WebSocket) -> pb.LiveConfig:
    """Return the config that a client sends first.

    Raises:
        InvalidRequestError: the first message is no config.
        StageDeadlineExceededError: no message comes in time.
        WebSocketDisconnect: the client went away.
    """
    try:
        async with asyncio.timeout(CONFIG_S):
            text = (await _received(socket)).get("text")
    except TimeoutError:
        raise StageDeadlineExceededError(f"no config came within {CONFIG_S:g} s: send a LiveConfig as JSON first") from None
    if text is None:
        raise InvalidRequestError("the first message must be a LiveConfig as JSON, a text", field="config", named=True)
    config = pb.LiveConfig()
    try:
        fill_message(config, json_object(text, "config"))
    except ValueError as problem:
        raise InvalidRequestError(f"the text cannot be read: {problem}", field="config", named=True) from None
    if not config.HasField("jpeg_quality"):
        config.jpeg_quality = QUALITY
    return config


async def _requests(socket: WebSocket, config: pb.LiveConfig) -> AsyncGenerator[pb.LiveRequest, None]:
    """Yield the requests of the RPC: the config, and the sound as it comes from when the RPC is ready for sound.

    Raises:
        InvalidRequestError: a message is no sound.
        WebSocketDisconnect: the client went away.
    """
    yield pb.LiveRequest(config=config)
    await _send(socket, {"ready": True})
    first = live_first_sample(config.first_frame, config.sample_rate_hz)
    sample_bytes = 2 * max(1, config.channels)  # the RPC refuses 0
    while pcm := (await _received(socket)).get("bytes"):
        if len(pcm) % sample_bytes:
            raise InvalidRequestError(
                f"{len(pcm)} bytes are not a whole number of 16-bit samples of {config.channels} channels",
                field="sound",
                named=True,
            )
        samples = np.frombuffer(pcm, "<i2").astype("<f4") / np.float32(32768)
        yield pb.LiveRequest(audio=pb.LiveAudio(first_sample=first, pcm_f32=samples.tobytes()))
        first += len(pcm) // sample_bytes
    if pcm is None:
        raise InvalidRequestError("after the config every message must be sound, in binary", field="sound", named=True)


async def _received(socket: WebSocket) -> dict[str, Any]:
    message = cast(dict[str, Any], await socket.receive())
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    return message
