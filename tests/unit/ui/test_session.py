from __future__ import annotations

import pytest
from starlette.requests import Request

from gateway.settings import GatewaySettings
from gateway.ui.pages import _own_path
from gateway.ui.session import Sessions, is_same_origin


def request_of(method: str = "GET", **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "127.0.0.1:8600", **headers}.items()]
    return Request({"type": "http", "method": method, "path": "/v1/actors", "headers": pairs})


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {"sec_fetch_site": "same-origin"}, True),
        ("GET", {"sec_fetch_site": "none"}, True),
        ("POST", {"sec_fetch_site": "none"}, False),
        ("GET", {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:8600"}, False),
        ("GET", {"sec_fetch_site": "cross-site"}, False),
        ("POST", {"origin": "http://127.0.0.1:8600"}, True),
        ("POST", {"origin": "http://127.0.0.1:8601", "referer": "http://127.0.0.1:8600/ui"}, False),
        ("POST", {"origin": "null"}, False),
        ("GET", {"referer": "https://127.0.0.1:8600/ui/dubs"}, True),
        ("GET", {}, False),
    ],
)
def test_requests_of_own_pages(method: str, headers: dict[str, str], expected: bool) -> None:
    """A cookie counts in requests of this server's pages, and in none that do not say where they come from."""
    assert is_same_origin(request_of(method, **headers)) is expected


@pytest.mark.parametrize("cookie", ["", "dubstage-0=%%%", "dubstage-0=_____w", "dubstage-1=YWJj"])
def test_damaged_cookie_is_no_token(cookie: str) -> None:
    """A cookie that cannot be read, or that is another gateway's, is no token."""
    assert Sessions(GatewaySettings()).authorization(request_of(cookie=cookie, sec_fetch_site="same-origin")) == ""


def test_own_authorization_wins() -> None:
    """A program's own token counts, whatever cookie and origin say."""
    sent = request_of(authorization="Bearer mine", cookie="dubstage-0=YWJj", sec_fetch_site="cross-site")
    assert Sessions(GatewaySettings()).authorization(sent) == "Bearer mine"
    assert (
        Sessions(GatewaySettings()).authorization(request_of(cookie="dubstage-0=YWJj", sec_fetch_site="same-origin"))
        == "Bearer abc"
    )


@pytest.mark.parametrize(
    "text", ["//evil.example/ui", "https://evil.example", "/v1/actors", "/ui?next=x", "/ui//evil\r\nx: y", "/uix"]
)
def test_sign_in_leads_nowhere_else(text: str) -> None:
    """After the sign-in, the browser is sent to these pages alone."""
    assert _own_path(text) == "/ui/dubs"
