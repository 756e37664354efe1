"""Application of the pages: their routes, the sign-in, headers, the media of players, and the page of the OpenAPI document."""

from __future__ import annotations

import asyncio
import io
import re
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote

import grpc.aio
import jinja2
from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dubstage.client.errors import status_of
from dubstage.gateway.v1 import batch_pb2
from gateway.batch.types import ShotAppearance, ShotFinish, ShotMotion
from gateway.dub.progress import STEP_NAMES
from gateway.reports.scales import SCALES
from gateway.settings import GatewaySettings
from gateway.ui.session import Sessions, is_loopback, is_same_origin
from services.common.errors import DubstageError, OverloadedError, UnauthenticatedError
from services.common.methods import DEFAULT_METHOD, METHODS, STILL_METHOD

Call = Callable[[MethodDescriptor, Message, Request, str], Awaitable[Message]]
"""Calls a unary RPC of the gateway. Takes the RPC, its request, the browser's request, and the value of `authorization` (empty:
none). Raises AioRpcError, UnauthenticatedError for a wrong token, and OverloadedError after many wrong tokens."""
Stream = Callable[[MethodDescriptor, Message, Request, str], AsyncIterator[Any]]
"""Calls an RPC that streams responses. Takes and raises what `Call` does; the stream ends with the browser's request."""
Download = Callable[[Request, str], Awaitable[Response]]
"""Answers a request with the file at a path of the media folder, or with the part that the header `Range` names."""

_FOLDER: Final = Path(__file__).parent
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self' blob:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
}
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".mp4": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
}
"""Types of files that players take. Browsers play QuickTime files only under the type of MP4."""
_STATUS: Final = {grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.UNAVAILABLE: 503}
"""Statuses of HTTP for refusals of RPCs. Others: 400."""
_LONGEST_FORM: Final = 16 << 10
FORM_S: Final = 20.0
"""Seconds in which a form arrives."""
SWAGGER_PACKAGE: Final = "swagger-ui-bundle-v2==5.31.0"
"""Package that has Swagger UI: the extra `gateway` of pyproject.toml has the same version."""
_SWAGGER_FILES: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
_OWN_PATH: Final = re.compile(r"/ui(/[\w.~/-]*)?")
_GET_REPORT: Final = batch_pb2.DESCRIPTOR.services_by_name["BatchService"].methods_by_name["GetReport"]
_LIST_OPERATIONS: Final = operations_pb2.DESCRIPTOR.services_by_name["Operations"].methods_by_name["ListOperations"]


@dataclass(frozen=True, slots=True)
class Caller:
    """User who asks for a page.

    Attributes:
        request: request of the user's browser.
        authorization: value of `authorization` of the user's calls; empty: the gateway asks for no token.
    """

    request: Request
    authorization: str
    _call: Call

    async def call(self, method: MethodDescriptor, message: Message) -> Any:
        """Call a unary RPC and return its response.

        Raises:
            grpc.aio.AioRpcError, DubstageError: the RPC was refused; the page then shows the sentence of the refusal.
        """
        return await self._call(method, message, self.request, self.authorization)


Values = Callable[[Caller, Request], Awaitable[Mapping[str, object]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page.

    Attributes:
        path: path of Starlette below `/ui`, such as `/dubs/{operation}`.
        template: file in `templates/`.
        title: title of the window.
        nav: text in the navigation; empty: the page is not in the navigation.
        section: path of the page whose entry of the navigation is marked; empty: the page's own.
        values: returns values for the template, besides the parameters of the path; None: there are none.
    """

    path: str
    template: str
    title: str
    nav: str = ""
    section: str = ""
    values: Values | None = None


async def _methods(_: Caller, __: Request) -> Mapping[str, object]:
    own = (DEFAULT_METHOD, STILL_METHOD)
    return {"methods": [METHODS[name] for name in own], "research": [row for name, row in METHODS.items() if name not in own]}


async def _shot_values(caller: Caller, request: Request) -> Mapping[str, object]:
    return {**await _methods(caller, request), "usual": usual_values()}


def usual_values() -> dict[str, tuple[float | None, float | None]]:
    """Return the edges of the usual values of a shot's figures, by the figure's path in the JSON of Shot. Times are in seconds."""
    groups = (("motion.", ShotMotion), ("appearance.", ShotAppearance), ("finish.", ShotFinish))
    prefixes = {"r_opening": "", **{name: prefix for prefix, group in groups for name in group.model_fields}}
    found = {}
    for name, prefix in prefixes.items():
        if (scale := SCALES.get(name)) is None:
            continue
        share = 1000 if name.endswith("_ms") else 1
        low, high = (None if edge is None else edge / share for edge in (scale.low, scale.high))
        found[prefix + re.sub("_(.)", lambda letter: letter[1].upper(), name.removesuffix("_ms"))] = low, high
    return found


async def _live_methods(_: Caller, __: Request) -> Mapping[str, object]:
    return {"methods": [name for name, row in METHODS.items() if row.live]}


PAGES: Final[tuple[Page, ...]] = (
    Page(path="/dubs", template="dubs.html.j2", title="Dubs", nav="Dubs"),
    Page(path="/new", template="new.html.j2", title="New dub", nav="New dub", values=_methods),
    Page(path="/dubs/{operation}", template="dub.html.j2", title="Dub", section="/dubs"),
    Page(path="/batches", template="batches.html.j2", title="Batches", nav="Batches", values=_methods),
    Page(path="/batches/{batch}", template="batch.html.j2", title="Batch", section="/batches"),
    Page(path="/batches/{batch}/shots/{shot}", template="shot.html.j2", title="Shot", section="/batches", values=_shot_values),
    Page(path="/live", template="live.html.j2", title="Live", nav="Live", values=_live_methods),
    Page(path="/people", template="people.html.j2", title="People", nav="People", values=_methods),
)
"""All pages. The first page is the one that the gateway opens with."""


class Pages:
    """Pages of a gateway.

    Args:
        sessions: the sessions of browsers.
        settings: settings of the gateway.
        call: calls the RPCs of the gateway.
        stream: calls those that stream.
        download: answers with files.
    """

    def __init__(self, sessions: Sessions, settings: GatewaySettings, call: Call, stream: Stream, download: Download) -> None:
        self._sessions = sessions
        self._is_open = not sessions.needs_token and not is_loopback(settings.web_host)
        self._call = call
        self._stream = stream
        self._download = download
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all pages and of what they load."""
        own = [Route(f"/ui{page.path}", self._handler(page), methods=["GET"]) for page in PAGES]
        return [
            *own,
            *(Route(path, self._first, methods=["GET"]) for path in ("/ui", "/ui/")),
            Route("/ui/sign-in", self._sign_in_page, methods=["GET"]),
            Route("/ui/sign-in", self._sign_in, methods=["POST"]),
            Route("/ui/sign-out", self._sign_out, methods=["POST"]),
            Route("/ui/batches/{batch}/report", self._report, methods=["GET"]),
            Route("/ui/media/{path:path}", self._media, methods=["GET"]),
            Route("/v1/docs", self._api, methods=["GET"]),
            *(Route(f"/ui/swagger/{name}", _swagger_file, methods=["GET"]) for name in _SWAGGER_FILES),
            Mount("/ui/static", _StaticFiles(directory=_FOLDER / "static")),
            Route("/ui/{path:path}", self._missing, methods=["GET", "POST"]),
        ]

    def _handler(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return self._refused(request) or await self._page(page, request)

        return answer

    async def _page(self, page: Page, request: Request) -> Response:
        caller, user = Caller(request, self._sessions.of_page(request), self._call), self._sessions.user(request).name
        values: Mapping[str, object] = {}
        refusal, number = "", 200
        try:
            if self._sessions.needs_token:
                await caller.call(_LIST_OPERATIONS, operations_pb2.ListOperationsRequest(page_size=1))
            if page.values is not None:
                values = await page.values(caller, request)
        except (grpc.aio.AioRpcError, DubstageError) as error:
            if _is_wrong_token(error):
                return _headed(RedirectResponse(f"/ui/sign-in?next={quote(request.scope['path'])}", 303))
            refusal, number = _sentence(error), _number(error)
        if refusal:
            return self._html("message.html.j2", page.title, {"message": refusal}, number, section=page.section or page.path)
        values = {**request.path_params, **values}
        return self._html(page.template, page.title, values, section=page.section or page.path, user=user)

    async def _first(self, _: Request) -> Response:
        return _headed(RedirectResponse(f"/ui{PAGES[0].path}", 303))

    async def _missing(self, request: Request) -> Response:
        text = f"There is no page {request.scope['path'][:200]}."
        return self._refused(request) or self._html("message.html.j2", "No such page", {"message": text}, 404)

    async def _api(self, _: Request) -> Response:
        """Show the OpenAPI document. The page needs no token, as the document needs none: the calls that a reader tries do."""
        if _swagger_folder() is None:
            text = f"/openapi.json has the document. This page needs a package that is missing here: pip install {SWAGGER_PACKAGE}"
            return self._html("message.html.j2", "API", {"message": text}, 501)
        return self._html("api.html.j2", "API", {})

    async def _media(self, request: Request) -> Response:
        """Send a file of the caller under a type that players take. The file is never shown as a page."""
        path = request.path_params["path"]
        response = await self._download(request, path)
        if response.status_code < 400:
            response.headers["Content-Type"] = _MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")
        response.headers.update({**_HEADERS, "Content-Security-Policy": "sandbox", "Cache-Control": "private, no-cache"})
        return response

    async def _report(self, request: Request) -> Response:
        """Send the report of a batch as one ZIP file."""
        if refused := self._refused(request):
            return refused
        batch = request.path_params["batch"]
        message = batch_pb2.GetReportRequest(name=f"batches/{batch}", format=batch_pb2.REPORT_FORMAT_ALL)
        pieces = self._stream(_GET_REPORT, message, request, self._sessions.authorization(request))
        try:
            first = await anext(pieces)
        except (grpc.aio.AioRpcError, DubstageError) as error:
            return self._html("message.html.j2", "Report", {"message": _sentence(error)}, _number(error), section="/batches")
        headers = {"Content-Disposition": f'attachment; filename="{batch}-report.zip"', "Cache-Control": "no-store"}
        return _headed(StreamingResponse(zipped(first, pieces), headers=headers, media_type="application/zip"))

    async def _sign_in_page(self, request: Request) -> Response:
        if self._sessions.user(request).authorization:
            return _headed(RedirectResponse(_own_path(request.query_params.get("next", "")), 303))
        if refused := self._refused(request):
            return refused
        return self._sign_in_form(request.query_params.get("next", ""), at_once=await self._may_sign_in_at_once(request))

    async def _may_sign_in_at_once(self, request: Request) -> bool:
        """Return whether a token in the address signs in without a click: no page of another origin has led here, and nobody is
        signed in. Otherwise a link would make a user work for the tenant of somebody else.
        """
        authorization = self._sessions.of_page(request)
        if not is_same_origin(request) or not authorization:
            return is_same_origin(request)
        try:
            await self._call(_LIST_OPERATIONS, operations_pb2.ListOperationsRequest(page_size=1), request, authorization)
        except (grpc.aio.AioRpcError, DubstageError) as error:
            return _is_wrong_token(error)
        return False

    def _sign_in_form(self, after: str, problem: str = "", number: int = 200, *, at_once: bool = False) -> Response:
        values = {"next": _own_path(after), "problem": problem, "at_once": at_once}
        return self._html("sign_in.html.j2", "Sign in", values, number)

    async def _sign_in(self, request: Request) -> Response:
        """Check a token by a call, and give the browser the cookie."""
        if refused := self._refused(request):
            return refused
        form = await _form(request)
        if form is None:
            return self._sign_in_form("", f"The form has more than {_LONGEST_FORM >> 10} KiB.", 413)
        token = form.get("token", "").strip()
        if not (token and token.isascii() and token.isprintable()):
            return self._sign_in_form(form.get("next", ""), "Give a token: one line of plain ASCII.", 400)
        try:
            await self._call(_LIST_OPERATIONS, operations_pb2.ListOperationsRequest(page_size=1), request, f"Bearer {token}")
        except (grpc.aio.AioRpcError, DubstageError) as error:
            wrong = _is_wrong_token(error)
            text = "The gateway does not accept this token." if wrong else _sentence(error)
            number = 401 if wrong else 429 if isinstance(error, OverloadedError) else 503
            return self._sign_in_form(form.get("next", ""), text, number)
        response = RedirectResponse(_own_path(form.get("next", "")), 303)
        self._sessions.begin(response, request, token)
        return _headed(response)

    async def _sign_out(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        response = RedirectResponse("/ui/sign-in", 303)
        self._sessions.end(response, request)
        return _headed(response)

    def _refused(self, request: Request) -> Response | None:
        """Return the refusal of a request; None: the request is allowed."""
        text = self._sessions.refusal(request)
        if not text and self._is_open:
            text = (
                "this gateway listens to other machines and asks for no token, so its pages are off: set DUBSTAGE_AUTH_TOKEN_FILE "
                "to a file of tokens, or DUBSTAGE_HTTP_HOST to 127.0.0.1"
            )
        return self._html("message.html.j2", "Refused", {"message": _capitalised(text)}, 403) if text else None

    def _html(
        self, template: str, title: str, values: Mapping[str, object], number: int = 200, *, section: str = "", user: str = ""
    ) -> Response:
        text = self._environment.get_template(template).render(
            title=title,
            nav=[page for page in PAGES if page.nav],
            section=section,
            signed_in=self._sessions.needs_token and bool(section) and not user,
            user=user,
            step_names=dict(STEP_NAMES),
            **values,
        )
        return _headed(HTMLResponse(text, number, {"Cache-Control": "no-store"}))


class _Sink(io.RawIOBase):
    """File that holds what was written since the last `taken`."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        """Return what was written, and forget it."""
        data = bytes(self._written)
        self._written.clear()
        return data


async def zipped(first: Any, further: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """Yield the bytes of a ZIP file with the files of a report.

    Args:
        first: first piece, GetReportResponse.
        further: the other pieces. The pieces of one file follow each other.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive, ExitStack() as opened:
        path = first.path
        file = opened.enter_context(archive.open(path, "w"))
        file.write(first.data)
        async for piece in further:
            if piece.path != path:
                opened.close()
                path = piece.path
                file = opened.enter_context(archive.open(path, "w"))
            file.write(piece.data)
            yield sink.taken()
    yield sink.taken()


def _swagger_folder() -> Path | None:
    """Return the folder of Swagger UI's files; None: the package is not installed."""
    try:
        from swagger_ui_bundle import swagger_ui_path
    except ModuleNotFoundError:
        return None
    return Path(swagger_ui_path)


async def _swagger_file(request: Request) -> Response:
    """Send one of Swagger UI's files. The other files of the package are not served: its own page loads foreign documents."""
    folder, name = _swagger_folder(), Path(request.scope["path"]).name
    if folder is None:
        return _headed(Response(status_code=404))
    return _headed(FileResponse(folder / name, headers={"Cache-Control": "no-cache"}))


class _StaticFiles(StaticFiles):
    """Files of the package, with the headers of the pages. A new version of dubstage is asked for at every load."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file."""
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"
        return _headed(response)


def _headed(response: Response) -> Response:
    response.headers.update(_HEADERS)
    return response


def _own_path(text: str) -> str:
    """Return a path of these pages; the first page for every other text, so that a sign-in leads nowhere else."""
    return text if _OWN_PATH.fullmatch(text) else f"/ui{PAGES[0].path}"


async def _form(request: Request) -> Mapping[str, str] | None:
    """Return the fields of a small form; none, if the form does not arrive in time; None: the form is too large."""
    body = b""
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > _LONGEST_FORM:
                    return None
    except (ClientDisconnect, TimeoutError):
        return {}
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).items()}


def _is_wrong_token(error: grpc.aio.AioRpcError | DubstageError) -> bool:
    if isinstance(error, DubstageError):
        return isinstance(error, UnauthenticatedError)
    return error.code() is grpc.StatusCode.UNAUTHENTICATED


def _number(error: grpc.aio.AioRpcError | DubstageError) -> int:
    """Return the status of HTTP of a page that shows a refusal."""
    if isinstance(error, DubstageError):
        return 429 if isinstance(error, OverloadedError) else 400
    return _STATUS.get(error.code(), 400)


def _sentence(error: grpc.aio.AioRpcError | DubstageError) -> str:
    if isinstance(error, DubstageError):
        return _capitalised(error.message)
    status = status_of(error)
    return _capitalised((status.message if status is not None else error.details()) or error.code().name)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
