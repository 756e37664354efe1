"""HTTP/JSON for the RPCs of the gateway: routes from the contracts' `google.api.http` options, over the same handlers.

Each request becomes one gRPC call to the server of this process, with the caller's `authorization`. So tokens, tenants, limits,
deadlines, audit and errors are those of the RPC. JSON is protobuf's own mapping. An RPC without the option has no route.

* A stream of responses, and an operation that is asked for with `Accept: text/event-stream`, is sent as Server-Sent Events: one
  event per message, then the event `end`; or the event `error`.
* With `body: "data"` in the contract, the body of the request is a file, or the part of it that `Content-Range` names. With
  `response_body: "data"`, the answer is a file. The file of a stream has ranges (`Range`) and `Repr-Digest` (RFC 9530).
* The head of a request decides: the token is checked before a byte of the body is read.
* A call of a request to the gRPC server ends with the request, however the request ends.
* A browser that is signed in to the pages (gateway/ui) sends a cookie in place of `authorization`. The cookie counts only in
  requests that a page of this server sends.
* Live streams have a WebSocket (live_socket.py).
* An error is `{"error": {"code", "status", "message", "details"}}`, a google.rpc.Status with the status of HTTP as its code.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

import grpc
import grpc.aio
import structlog
import uvicorn
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from dubstage.client.aio import responses_of
from dubstage.client.errors import status_of
from dubstage.gateway.v1 import batch_pb2, gateway_pb2, media_pb2, webhook_pb2
from gateway.api.http_bodies import Bodies, check_items, json_object, limits_of
from gateway.api.http_callers import HttpCallers, Shares
from gateway.api.http_connections import Connections, connection_classes
from gateway.api.live_socket import MAX_MESSAGE_BYTES, LiveSocket
from gateway.api.openapi import openapi_document
from gateway.api.resources import fill_message, json_of
from gateway.api.uploads import READY_KEY
from gateway.async_utilities import cancel_all, in_thread
from gateway.media.uploads import PIECE_BYTES
from gateway.settings import GatewaySettings
from gateway.ui.pages import Pages
from gateway.ui.proxy import PEER, ProxyUsers
from gateway.ui.session import Sessions
from gateway.webhooks.addresses import networks_of
from services.common.errors import DubstageError, InvalidRequestError, MessageTooLargeError
from services.common.server import error_status
from services.common.server.auth import AUTHORIZATION_KEY, TokenCheck

SERVED: Final[tuple[ServiceDescriptor, ...]] = tuple(
    service
    for file in (gateway_pb2, batch_pb2, media_pb2, webhook_pb2, operations_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""Services of the gateway."""
MOST_EVENTS: Final = 128
"""Most streams of Server-Sent Events at the same time."""
MOST_EVENTS_OF_CALLER: Final = 64
"""Most streams of Server-Sent Events of one tenant; without tokens, of one client address."""
ANSWERS_S: Final = 5.0
"""Seconds in which a call through the channel to the gRPC server comes back, unless HTTP is stuck."""
_IDLE_S: Final = 10
_LAST_RESPONSES_S: Final = 2
"""Seconds in which the last responses leave."""
_BACKLOG: Final = 128
_SEND_S: Final = 60.0
_POLL_S: Final = 1.0
_PING_S: Final = 15
_MAX_HEAD_BYTES: Final = 32 << 10
_LARGE_BYTES: Final = 64 << 10
"""Size of an answer above which a thread makes the JSON."""
_EVENTS: Final = "text/event-stream"
_FILE: Final = "data"
"""Field of a message that is the body of a request or a response."""
_DOWNLOAD: Final = media_pb2.DESCRIPTOR.services_by_name["MediaService"].methods_by_name["DownloadFile"]
_HEALTH: Final[Any] = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
_HEADERS: Final = [("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin")]
"""Headers of every answer: no page of another origin loads an answer, and no browser takes an answer for something else."""
_SMALL_FILE: Final = {"Cache-Control": "private, no-store", "Content-Security-Policy": "sandbox"}
"""Headers of a file that is sent whole, such as the picture of a person, which no browser keeps after an erasure."""
_STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Names of gRPC statuses -> statuses of HTTP (google/rpc/code.proto). Others: 500."""
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.stdlib.get_logger("dubstage.rest")
_VARIABLE: Final = re.compile(r"\{(\w+)(?:=([^}]*))?\}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_DIGEST: Final = re.compile(r"sha-256=:([^:]*):", re.IGNORECASE)
_Kind = Literal["unary_unary", "unary_stream", "stream_unary"]


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """Route of one RPC.

    Attributes:
        verb: method of HTTP.
        template: path as the contract writes it, such as `/v1/{name=actors/*}`.
        pattern: matches a path; its groups are the fields of the request that the path gives.
        has_body: whether the body is the request. Otherwise the query gives the fields that are not in the path.
        takes_file: whether the body is a file, which the RPC takes in pieces.
        gives_file: whether the answer is a file, which the RPC sends in pieces if it is a stream.
        method: the RPC.
    """

    verb: str
    template: str
    pattern: re.Pattern[str]
    has_body: bool
    takes_file: bool
    gives_file: bool
    method: MethodDescriptor


def _pattern_of(template: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for variable in _VARIABLE.finditer(template):
        segments = re.escape(variable[2] or "*").replace(r"\*\*", "[^:]+").replace(r"\*", "[^/:]+")
        pattern += re.escape(template[end : variable.start()]) + f"(?P<{variable[1]}>{segments})"
        end = variable.end()
    return re.compile(pattern + re.escape(template[end:]))


def routes_of(services: Iterable[ServiceDescriptor]) -> tuple[HttpRoute, ...]:
    """Return the routes of all RPCs that have the option `google.api.http`."""
    routes = []
    for service in services:
        for method in service.methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            if verb is not None:
                template = getattr(rule, verb)
                takes_file, gives_file = rule.body == _FILE, rule.response_body == _FILE
                pattern = _pattern_of(template)
                routes.append(HttpRoute(verb.upper(), template, pattern, rule.body == "*", takes_file, gives_file, method))
    return tuple(routes)


ROUTES: Final = routes_of(SERVED)


def request_message(route: HttpRoute, path: str, query: Iterable[tuple[str, str]], body: bytes) -> Message:
    """Return the request of an RPC.

    Args:
        path: a path that matches the route.
        query: names and values of the query, in order.
        body: JSON; empty: an object without fields.

    Raises:
        InvalidRequestError: the body is no JSON object, or a field is unknown or has a wrong value.
    """
    message: Message = GetMessageClass(route.method.input_type)()
    if route.has_body:
        given = json_object(body or b"{}", "body")
        if left := [name for name, _ in query]:
            raise InvalidRequestError(f"{left[0]}: the query has no fields here; send this field in the body", field=left[0])
    elif body:
        raise InvalidRequestError("this request has no body: send the fields in the query", field="body")
    else:
        given = _fields_of_query(route.method.input_type, query)
    match = route.pattern.fullmatch(path)
    assert match is not None
    check_items(given, route.method.input_type)
    for name, value in match.groupdict().items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if any(given.pop(spelling, value) != value for spelling in {name, field.json_name}):
            raise InvalidRequestError(f"the path gives {value[:80]!r}, and the request another value", field=name, named=True)
        given[name] = value
    try:
        fill_message(message, given)
    except ValueError as problem:
        raise InvalidRequestError(f"the request cannot be read: {problem}", field=_field_in(str(problem))) from None
    return message


def _fields_of_query(message: Descriptor, query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    names = {spelling: field for field in message.fields for spelling in (field.name, field.json_name)}
    given: dict[str, Any] = {}
    for name, text in query:
        field = names.get(name)
        if field is None or (field.type == FieldDescriptor.TYPE_MESSAGE):
            raise InvalidRequestError(f"{name[:80]}: this request has no such field in its query", field=name[:80])
        value: Any = text
        if field.type == FieldDescriptor.TYPE_BOOL:
            value = {"true": True, "false": False}.get(text.lower(), text)
        if field.is_repeated:
            given.setdefault(field.name, []).append(value)
        elif field.name in given:
            raise InvalidRequestError("the query gives this field twice", field=name, named=True)
        else:
            given[field.name] = value
    return given


def _field_in(problem: str) -> str:
    """Return the name of the field in an error text of protobuf's JSON parser; `body` if the text names no field."""
    match = re.search(r'no field named "(?P<unknown>[^"]{1,80})"|parse (?P<wrong>\w+) field', problem)
    return (match["unknown"] or match["wrong"]) if match else "body"


@dataclass(frozen=True, slots=True)
class FileUpload:
    """File in the body of a request, as the headers describe the file.

    Attributes:
        size_bytes: size of the whole file.
        offset: position of the body's first byte in the file.
        sha256: SHA-256 of the whole file, hexadecimal; empty: none is given.
    """

    size_bytes: int
    offset: int
    sha256: str


def upload_of(headers: Mapping[str, str]) -> FileUpload:
    """Return what `Content-Range`, `Content-Length` and `Repr-Digest` say of the file in a body.

    Args:
        headers: names in lower case.

    Raises:
        InvalidRequestError: a header cannot be read, or the size of the file is not given.
    """
    sha256 = sha256_of_digest(headers.get("repr-digest", ""))
    length = headers.get("content-length", "")
    if (text := headers.get("content-range")) is None:
        if not (length.isdecimal() and len(length) <= 18):
            raise InvalidRequestError(
                "the size of the file is not known: send Content-Length, or Content-Range: bytes FIRST-LAST/SIZE",
                field="size_bytes",
            )
        return FileUpload(int(length), 0, sha256)
    match = _CONTENT_RANGE.fullmatch(text)
    first, last, size = map(int, match.groups()) if match else (1, 0, 0)
    if not first <= last < size or (length and length != str(last - first + 1)):
        raise InvalidRequestError(
            f"{text[:80]!r} cannot be used with a body of {length or '?'} bytes: send bytes FIRST-LAST/SIZE",
            field="Content-Range",
            named=True,
        )
    return FileUpload(size, first, sha256)


def sha256_of_digest(text: str) -> str:
    """Return the SHA-256 of a header `Repr-Digest`, hexadecimal; empty: the header has none.

    Raises:
        InvalidRequestError: the digest is no SHA-256 in base64.
    """
    if (match := _DIGEST.search(text)) is None:
        return ""
    with suppress(binascii.Error):
        digest = base64.b64decode(match[1], validate=True)
        if len(digest) == 32:
            return digest.hex()
    raise InvalidRequestError("send sha-256=:BASE64: with the 32 bytes of the SHA-256", field="Repr-Digest", named=True)


def digest_header(sha256: str) -> str:
    """Return the value of `Repr-Digest` for a SHA-256 in hexadecimal."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def range_of(text: str, size_bytes: int) -> range | None:
    """Return the bytes that a header `Range` asks for; None: the whole file, because the header has no single range of bytes.

    Args:
        text: value of the header.
        size_bytes: size of the file.

    Returns:
        The range, which is empty if the file has none of these bytes.
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:
        return range(max(0, size_bytes - int(match[2])), size_bytes)
    first = int(match[1])
    if match[2] and int(match[2]) < first:
        return None
    return range(first, min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes)


def error_response(status: status_pb2.Status) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return an error for HTTP: the status, the JSON body, and headers."""
    name = _CODES.get(status.code, "UNKNOWN")
    details = [json_format.MessageToDict(detail) for detail in status.details]
    number = _STATUS_OF_CODE.get(name, 500)
    if any(detail.get("reason") == MessageTooLargeError.reason for detail in details):
        number = 413
    headers = {}
    for detail in details:
        if delay := detail.get("retryDelay"):
            headers["Retry-After"] = str(max(1, round(float(delay.removesuffix("s")))))
    if number == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return number, {"error": {"code": number, "status": name, "message": status.message, "details": details}}, headers


def _answer_of(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return the answer of HTTP for an error of a call, or for a refusal of this server."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error_response(_failure(error))
    return error_response(error_status.to_status(cast(DubstageError, error), stage="gateway"))


def _answers_errors(handler: Callable[P, Awaitable[Response]]) -> Callable[P, Awaitable[Response]]:
    """Return a handler whose errors are answers too."""

    @functools.wraps(handler)
    async def answered(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            return await handler(*args, **kwargs)
        except (DubstageError, grpc.aio.AioRpcError) as error:
            number, body, headers = _answer_of(error)
            return JSONResponse(body, number, headers)
        except ClientDisconnect:
            return Response(status_code=_STATUS_OF_CODE["CANCELLED"])

    return answered


def _failure(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    sent = status_of(error)
    return sent if sent is not None else status_pb2.Status(code=error.code().value[0], message=error.details() or error.code().name)


class _Calls:
    """The RPCs over the channel to the gRPC server of this process, which only WebSockets use besides.

    Args:
        channel: channel to the gRPC server, which answers a limited number of calls at a time. While further calls wait, all HTTP
            requests wait.
        settings: settings of the gateway.
    """

    def __init__(self, channel: grpc.aio.Channel, settings: GatewaySettings) -> None:
        self._channel = channel
        self._settings = settings

    @contextmanager
    def _begun(self, kind: _Kind, method: MethodDescriptor, *sent: Message, timeout: float, **options: Any) -> Iterator[Any]:
        """Begin a call, and end the call with the block, however the block ends."""
        make: Any = getattr(self._channel, kind)
        call = make(_path_of(method), _serialized, GetMessageClass(method.output_type).FromString)(
            *sent, timeout=timeout, **options
        )
        try:
            yield call
        finally:
            call.cancel()

    async def unary(
        self, method: MethodDescriptor, message: Message, metadata: grpc.aio.Metadata, *, timeout: float | None = None
    ) -> Message:
        with self._begun(
            "unary_unary", method, message, metadata=metadata, timeout=timeout or self._settings.default_deadline_s
        ) as call:
            response: Message = await call
            return response

    async def all(self, method: MethodDescriptor, message: Message, metadata: grpc.aio.Metadata) -> list[Any]:
        """Return the responses of a short stream."""
        with self._begun("unary_stream", method, message, metadata=metadata, timeout=self._settings.max_deadline_s) as call:
            return [response async for response in responses_of(call)]

    def stream(
        self, request: Request, method: MethodDescriptor, message: Message, metadata: grpc.aio.Metadata
    ) -> AsyncIterator[Any]:
        """Return the responses of a stream, which ends with the request."""
        begun = self._begun("unary_stream", method, message, metadata=metadata, timeout=self._settings.max_deadline_s)
        return responses_of(_held(request).enter_context(begun))

    async def upload(
        self, method: MethodDescriptor, first: Message, body: AsyncIterator[bytes], metadata: grpc.aio.Metadata
    ) -> Message:
        """Send a first message, and the body in pieces when the server is ready. Of a call that ends first, no more is read."""
        piece_of = GetMessageClass(method.input_type)
        with self._begun("stream_unary", method, metadata=metadata, timeout=self._settings.max_deadline_s) as call:
            # A write to a call that has ended fails, and the status of the call says why.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(first)
                # A refused call has initial metadata too, empty ones, a moment before its status.
                if READY_KEY in await call.initial_metadata():
                    await _unless_ended(call, _sent(call, piece_of, body))
            response: Message = await call
            return response

    async def operation(self, method: MethodDescriptor, message: Message, metadata: grpc.aio.Metadata) -> AsyncIterator[Message]:
        """Yield an operation when it has changed, at most once in a second, until the operation has ended."""
        before: Message | None = None
        async with asyncio.timeout(self._settings.max_deadline_s):
            while True:
                operation: Any = await self.unary(method, message, metadata)
                if operation != before:
                    yield operation
                if operation.done:
                    return
                before = operation
                await asyncio.sleep(_POLL_S)


def _held(request: Request) -> ExitStack:
    """Return what a request holds until its end, however the request ends."""
    held: ExitStack = request.state.held
    return held


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do work for a request whose body was read, and end the work when the client goes away.

    Raises:
        ClientDisconnect: the client went away.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        await cancel_all([doing, leaving])


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sent(call: Any, piece_of: type[Any], body: AsyncIterator[bytes]) -> None:
    """Send a body in pieces."""
    async for piece in _pieces(body):
        await call.write(piece_of(data=piece))
    await call.done_writing()


async def _unless_ended(call: Any, work: Coroutine[Any, Any, None]) -> None:
    """Do work for a call, and stop the work when the call ends: a client that sends nothing more holds no connection."""
    sending, ended = asyncio.ensure_future(work), asyncio.ensure_future(call.code())
    try:
        await asyncio.wait({sending, ended}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        for task in (sending, ended):
            task.cancel()
        await asyncio.gather(sending, ended, return_exceptions=True)


async def _pieces(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of a body in larger pieces."""
    collected = bytearray()
    async for part in body:
        collected += part
        if len(collected) >= PIECE_BYTES:
            yield bytes(collected)
            collected.clear()
    if collected:
        yield bytes(collected)


def _path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


class RestApplication:
    """Application of HTTP over a channel to the gateway.

    Args:
        channel: channel to the gRPC server of this process.
        settings: settings of the gateway.
        tokens: tokens that the gateway accepts.
        proxy: finds the users whom a proxy has signed in; None: there is no such proxy.
    """

    def __init__(
        self, channel: grpc.aio.Channel, settings: GatewaySettings, tokens: TokenCheck, proxy: ProxyUsers | None = None
    ) -> None:
        self._calls = _Calls(channel, settings)
        self._callers = HttpCallers(tokens)
        self._bodies = Bodies(settings.max_message_bytes)
        self._events = Shares(MOST_EVENTS, MOST_EVENTS_OF_CALLER, "streams of events at the same time")
        self._sessions = Sessions(settings, proxy)
        self._openapi = json.dumps(openapi_document(ROUTES), indent=1).encode()
        verbs = sorted({route.verb for route in ROUTES})
        pages = Pages(self._sessions, settings, self._called_by_page, self._streamed_to_page, self._download_to_page)
        live = LiveSocket(channel, settings.max_deadline_s, self._sessions, self._checked, _answer_of)
        routes = Starlette(
            routes=[
                *live.routes(),
                Route("/", self._first_page, methods=["GET"]),
                Route("/healthz", self._health, methods=["GET"]),
                Route("/openapi.json", self._document, methods=["GET"]),
                *pages.routes(),
                Route("/{path:path}", self._rpc, methods=verbs),
            ]
        )
        # Only a proxy of the settings may forward the client's address and scheme.
        self._routes: Any = ProxyHeadersMiddleware(routes, settings.proxy_networks) if settings.proxy_networks else routes  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and end the calls that the request has begun."""
        with ExitStack() as held:
            client = scope.get("client")
            scope["state"] = {**scope.get("state", {}), "held": held, PEER: client[0] if client else ""}
            await self._routes(scope, receive, send)

    async def answers(self) -> bool:
        """Return whether a call through the channel comes back, whatever it answers."""
        try:
            await self._calls.unary(_HEALTH, health_pb2.HealthCheckRequest(), grpc.aio.Metadata(), timeout=ANSWERS_S)
        except grpc.aio.AioRpcError as error:
            return error.code() not in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        return True

    async def _first_page(self, _: Request) -> Response:
        return RedirectResponse("/ui", 303)

    async def _document(self, _: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    @_answers_errors
    async def _health(self, request: Request) -> Response:
        metadata, _ = self._checked(request, self._sessions.authorization(request))
        answer: Any = await self._calls.unary(_HEALTH, health_pb2.HealthCheckRequest(), metadata, timeout=ANSWERS_S)
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return JSONResponse({"status": name}, 200 if answer.status == health_pb2.HealthCheckResponse.SERVING else 503)

    async def _rpc(self, request: Request) -> Response:
        # Starlette's URL leaves out line breaks of the path.
        path = request.scope["path"]
        if refusal := self._sessions.refusal(request):
            return _plain(403, "PERMISSION_DENIED", refusal)
        matching = {route.verb: route for route in ROUTES if route.pattern.fullmatch(path)}
        route = matching.get(request.method)
        if route is not None:
            return await self._answer(route, request)
        text = f"there is no {request.method} {path[:200]}: /openapi.json lists the routes"
        if matching:
            return _plain(405, "UNIMPLEMENTED", text, {"Allow": ", ".join(matching)})
        return _plain(404, "NOT_FOUND", text)

    @_answers_errors
    async def _answer(self, route: HttpRoute, request: Request) -> Response:
        metadata, caller = self._checked(request, self._sessions.authorization(request))
        message = await self._message(route, request, caller)
        if route.takes_file:
            return await self._upload(route.method, message, request, metadata)
        return await _unless_gone(request, self._called(route, message, request, metadata, caller))

    async def _message(self, route: HttpRoute, request: Request, caller: str) -> Message:
        """Return the request of an RPC, whose JSON is parsed within limits."""
        path, query = request.scope["path"], request.query_params.multi_items()
        if not route.has_body:
            has_body = not route.takes_file and (
                request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
            )
            return request_message(route, path, query, b"{}" if has_body else b"")
        parse = functools.partial(request_message, route, path, query)
        return await self._bodies.parsed(request, limits_of(route.method.input_type), caller, parse)

    async def _called(
        self, route: HttpRoute, message: Message, request: Request, metadata: grpc.aio.Metadata, caller: str
    ) -> Response:
        method = route.method
        if route.gives_file and not method.server_streaming:
            answer: Any = await self._calls.unary(method, message, metadata)
            return Response(answer.data, headers=_SMALL_FILE, media_type=answer.media_type)
        if route.gives_file:
            return await self._download(method, message, request, metadata)
        is_watched = _is_watched(route) and _EVENTS in request.headers.get("accept", "")
        if method.server_streaming or is_watched:
            _held(request).enter_context(self._events.taken(caller))
            if is_watched:
                return _events(self._calls.operation(method, message, metadata))
            return _events(self._calls.stream(request, method, message, metadata))
        return await _json_response(await self._calls.unary(method, message, metadata))

    async def _upload(self, method: MethodDescriptor, first: Any, request: Request, metadata: grpc.aio.Metadata) -> Response:
        """Send the body of a request to an RPC that takes a file."""
        file = upload_of(request.headers)
        first.size_bytes, first.offset, first.sha256 = file.size_bytes, file.offset, file.sha256
        return await _json_response(await self._calls.upload(method, first, request.stream(), metadata))

    async def _download(self, method: MethodDescriptor, message: Any, request: Request, metadata: grpc.aio.Metadata) -> Response:
        """Answer with a file, or with the part that the header `Range` names."""
        if message.offset or message.max_bytes:
            raise InvalidRequestError("the query has no fields here; send the header Range", field="offset", named=True)
        # The size of the file decides about the range, and the digest about If-Range.
        message.max_bytes = 1
        facts, *_ = await self._calls.all(method, message, metadata)
        etag = f'"{facts.sha256}"'
        headers = {"Accept-Ranges": "bytes", "ETag": etag, "Repr-Digest": digest_header(facts.sha256)}
        part = range_of(request.headers.get("range", ""), facts.size_bytes)
        if part is not None and request.headers.get("if-range", etag) != etag:
            part = None
        if part is not None and not part:
            headers["Content-Range"] = f"bytes */{facts.size_bytes}"
            return _plain(416, "OUT_OF_RANGE", f"the file has {facts.size_bytes} bytes", headers)
        whole = range(facts.size_bytes) if part is None else part
        headers["Content-Length"] = str(len(whole))
        if part is not None:
            headers["Content-Range"] = f"bytes {whole.start}-{whole.stop - 1}/{facts.size_bytes}"
        number, media_type = 200 if part is None else 206, "application/octet-stream"
        if request.method == "HEAD":
            return Response(None, number, headers, media_type)
        message.offset, message.max_bytes = whole.start, len(whole)
        responses = self._calls.stream(request, method, message, metadata)
        if await anext(responses) != facts:
            return _plain(409, "ABORTED", "the file has changed during the request: ask again")
        return StreamingResponse((response.data async for response in responses), number, headers, media_type)

    async def _called_by_page(self, method: MethodDescriptor, message: Message, request: Request, authorization: str) -> Message:
        metadata, _ = self._checked(request, authorization)
        return await self._calls.unary(method, message, metadata)

    async def _streamed_to_page(
        self, method: MethodDescriptor, message: Message, request: Request, authorization: str
    ) -> AsyncIterator[Any]:
        metadata, _ = self._checked(request, authorization)
        async for response in self._calls.stream(request, method, message, metadata):
            yield response

    @_answers_errors
    async def _download_to_page(self, request: Request, path: str) -> Response:
        if refusal := self._sessions.refusal(request):
            return _plain(403, "PERMISSION_DENIED", refusal)
        metadata, _ = self._checked(request, self._sessions.authorization(request))
        message = media_pb2.DownloadFileRequest(path=path)
        return await _unless_gone(request, self._download(_DOWNLOAD, message, request, metadata))

    def _checked(self, request: HTTPConnection, authorization: str) -> tuple[grpc.aio.Metadata, str]:
        """Return the metadata of calls for a request, and what stands for the caller.

        Raises:
            UnauthenticatedError: there is no token, or a wrong one.
            OverloadedError: too many wrong tokens came from the client address.
        """
        caller = self._callers.check(request.client.host if request.client else "", authorization)
        return _with_authorization(authorization), caller


def _with_authorization(authorization: str) -> grpc.aio.Metadata:
    metadata = grpc.aio.Metadata()
    if authorization:
        metadata.add(AUTHORIZATION_KEY, authorization)
    return metadata


def _is_watched(route: HttpRoute) -> bool:
    """Return whether a route shows one operation, which is also sent as events."""
    return route.verb == "GET" and route.method.output_type is operations_pb2.Operation.DESCRIPTOR


async def _json_response(message: Message) -> Response:
    if message.ByteSize() <= _LARGE_BYTES:
        return JSONResponse(json_of(message))
    return await in_thread(lambda: JSONResponse(json_of(message)))


def _plain(number: int, name: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": number, "status": name, "message": text, "details": []}}, number, headers)


def _events(messages: AsyncIterator[Message]) -> Response:
    async def events() -> AsyncIterator[ServerSentEvent]:
        try:
            async for message in messages:
                yield ServerSentEvent(json.dumps(json_of(message)))
        except grpc.aio.AioRpcError as error:
            yield ServerSentEvent(json.dumps(_answer_of(error)[1]), event="error")
        except TimeoutError:
            late = status_pb2.Status(
                code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0], message="the stream is over its time: ask again"
            )
            yield ServerSentEvent(json.dumps(error_response(late)[1]), event="error")
        else:
            yield ServerSentEvent("{}", event="end")

    return EventSourceResponse(events(), ping=_PING_S, send_timeout=_SEND_S)


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        """Leave the signals to the process of the gateway."""
        return nullcontext()


class RestServer:
    """HTTP server beside the gRPC server of a process.

    Args:
        target: gRPC target of the gateway without TLS, such as `unix:PATH`.
        settings: settings of the gateway; `http_port` is the port.
        tokens: tokens that the gateway accepts.
        proxy: finds the users whom a proxy has signed in; None: there is no such proxy.
    """

    def __init__(self, target: str, settings: GatewaySettings, tokens: TokenCheck, proxy: ProxyUsers | None = None) -> None:
        self.target = target
        self._settings = settings
        self._tokens = tokens
        self._proxy = proxy
        self._connections = Connections(networks_of(settings.proxy_networks))
        self._channel: grpc.aio.Channel | None = None
        self._application: RestApplication | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is in use or cannot be used.
        """
        settings = self._settings
        host = settings.web_host.strip("[]")
        family = socket.getaddrinfo(host, settings.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = self._connections.listening(socket.create_server((host, settings.http_port), family=family, backlog=_BACKLOG))
        options = [("grpc.max_send_message_length", settings.max_message_bytes), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self.target, options=options)
        self._application = RestApplication(self._channel, settings, self._tokens, self._proxy)
        http, websocket = connection_classes(self._connections)
        self._server = _Server(
            uvicorn.Config(
                self._application,
                http=http,
                ws=websocket,
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                # A pong comes after all sound that the client has sent, so a pong may be late on a stream that is well.
                ws_ping_timeout=None,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                headers=_HEADERS,
                # The application itself knows the proxies of the settings.
                proxy_headers=False,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_LAST_RESPONSES_S,
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
                ssl_certfile=settings.tls_certificate_file,
                ssl_keyfile=settings.tls_key_file,
                ssl_ca_certs=str(settings.tls_client_ca_file) if settings.tls_client_ca_file else None,
                ssl_cert_reqs=ssl.CERT_REQUIRED if settings.require_client_certificate else ssl.CERT_NONE,
            )
        )
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        self._watching = asyncio.create_task(self._connections.watch())
        _log.info("http_listening", host=settings.web_host, port=settings.http_port)

    async def answers(self) -> bool:
        """Return whether HTTP answers: the server runs, and a call through its channel comes back."""
        if self._application is None or self._serving is None or self._serving.done():
            return False
        return await self._application.answers()

    def close(self) -> None:
        """Take no further connections. Running requests go on, as long as the gRPC server answers them."""
        if self._server is not None:
            for listening in self._server.servers:
                listening.close()

    async def stop(self) -> None:
        """Stop, after the gRPC server has ended the calls of running requests."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._watching is not None:
            self._watching.cancel()
        if self._channel is not None:
            await self._channel.close()
