"""Sessions of browsers: the cookie that holds a token, or the user whom a proxy names, and the requests in which they count."""

from __future__ import annotations

import base64
from contextlib import suppress
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from gateway.settings import GatewaySettings
from gateway.ui.proxy import ProxyUser, ProxyUsers
from services.common.server.auth import AUTHORIZATION_KEY

_READS: Final = frozenset({"GET", "HEAD"})


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: localhost, or a loopback address."""
    name = host.strip("[]").lower()
    with suppress(ValueError):
        address = ip_address(name)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return name == "localhost"


class Sessions:
    """Cookies of one gateway.

    Args:
        settings: settings of the gateway.
        proxy: finds the users whom a proxy has signed in; None: there is no such proxy.
    """

    def __init__(self, settings: GatewaySettings, proxy: ProxyUsers | None = None) -> None:
        self._proxy = proxy
        # Browsers send the cookies of a host to all its ports: a second gateway of the machine has a cookie of its own.
        self._name = f"dubstage-{settings.http_port}"
        self.needs_token = settings.auth_token_file is not None
        """Whether the gateway asks for tokens."""
        # Without tokens, a page in the user's browser must not reach the gateway under a name of its own (DNS rebinding).
        self._is_own_machine = not self.needs_token and is_loopback(settings.web_host)

    def user(self, request: HTTPConnection) -> ProxyUser:
        """Return the user of the request whom a proxy has signed in; without a name: there is none."""
        return self._proxy.user(request) if self._proxy is not None else ProxyUser()

    def of_page(self, request: HTTPConnection) -> str:
        """Return the value of `authorization` for what a page itself asks: that of user or cookie; empty: there is none."""
        token = self.token(request)
        return self.user(request).authorization or (f"Bearer {token}" if token else "")

    def token(self, request: HTTPConnection) -> str:
        """Return the token of the request's cookie; empty: there is none."""
        value = request.cookies.get(self._name, "")
        with suppress(ValueError):
            token = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode("ascii")
            # No token has such characters, and gRPC sends none.
            return token if token.isprintable() else ""
        return ""

    def authorization(self, request: HTTPConnection) -> str:
        """Return the value of `authorization` for the RPC: the request's own, or in requests of own pages that of user or cookie.

        Empty: there is none. A page of another origin uses neither the cookie nor the session of a proxy (CSRF). Of a user whom a
        proxy has signed in, the user counts alone: proxies put headers of their own into `authorization`.
        """
        if (user := self.user(request)).name:
            return user.authorization if is_same_origin(request) else ""
        if given := request.headers.get(AUTHORIZATION_KEY):
            return given
        token = self.token(request)
        return f"Bearer {token}" if token and is_same_origin(request) else ""

    def begin(self, response: Response, request: Request, token: str) -> None:
        """Give the browser the cookie. It ends with the browser's session."""
        # A browser would put a value with padding into quotes.
        value = base64.urlsafe_b64encode(token.encode("ascii")).decode().rstrip("=")
        secure = request.scope["scheme"] == "https"
        response.set_cookie(self._name, value, path="/", secure=secure, httponly=True, samesite="strict")

    def end(self, response: Response, request: Request) -> None:
        """Remove the cookie."""
        secure = request.scope["scheme"] == "https"
        response.delete_cookie(self._name, path="/", secure=secure, httponly=True, samesite="strict")

    def refusal(self, request: HTTPConnection) -> str:
        """Return why a request is refused that a page of another origin sends; empty: it is no such request."""
        host = request.headers.get("host", "")
        if self._is_own_machine and not (is_loopback(host) or is_loopback(host.rpartition(":")[0])):
            return f"this gateway serves its own machine: call it as localhost, not as {host[:80]!r}"
        origin = request.headers.get("origin")
        if not _is_read(request) and origin is not None and origin.partition("://")[2] != host:
            return f"a page of {origin[:80]!r} may not call this gateway"
        return self.user(request).refusal


def is_same_origin(request: HTTPConnection) -> bool:
    """Return whether a page of this gateway, or for a read the user in the address bar, has sent a request.

    Browsers send `Sec-Fetch-Site` over TLS and to this machine. Elsewhere, and for WebSockets, `Origin` or `Referer` say where a
    request comes from.
    """
    site = request.headers.get("sec-fetch-site") if request.scope["type"] == "http" else None
    if site is not None:
        return site == "same-origin" or (site == "none" and _is_read(request))
    came_from = request.headers.get("origin") or request.headers.get("referer", "")
    with suppress(ValueError):
        return bool(came_from) and urlsplit(came_from).netloc == request.headers.get("host")
    return False


def _is_read(request: HTTPConnection) -> bool:
    """Return whether a request changes nothing. The handshake of a WebSocket, which names no method here, may begin work."""
    return request.scope.get("method") in _READS
