"""Tests of what pages offer, without a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

from gateway.settings import GatewaySettings
from gateway.ui.pages import Pages
from gateway.ui.session import Sessions
from services.common.methods import METHODS


@pytest.mark.parametrize("path", ["/ui/new", "/ui/batches/{batch}/shots/{shot}"])
async def test_papers_stand_in_a_group(path: str) -> None:
    """The own methods come first, and those of papers in the group "Research"."""
    settings, never = GatewaySettings(), lambda *_: None
    pages: Any = Pages(Sessions(settings), settings, never, never)  # type: ignore[arg-type]  # these pages call nothing
    (route,) = (route for route in pages.routes() if isinstance(route, Route) and route.path == path)
    headers = [(b"host", b"127.0.0.1:8600")]
    values = {"batch": "night", "shot": "a"} if "{" in path else {}
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b"", "path_params": values}
    page = bytes((await route.endpoint(Request(scope))).body).decode()
    menu = re.search(r'<select id="method".*?</select>', page, re.DOTALL)
    assert menu is not None
    own, _, papers = menu[0].partition('<optgroup label="Research">')
    listed = [re.findall(r"<option[^>]*>(\w+)(?: \(moves the head\))?</option>", part) for part in (own, papers)]
    assert listed == [["dubstage", "portrait"], ["ugc", "everybody", "headpose", "hetero", "everyone"]]
    assert {name for part in listed for name in part} == set(METHODS)
