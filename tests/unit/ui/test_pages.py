"""Tests of what pages offer, without a browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.settings import GatewaySettings
from gateway.ui.pages import Pages
from services.common.methods import METHODS

SESSIONS: Any = type(
    "AnySessions",
    (),
    {
        "needs_token": False,
        "refusal": lambda self, request: "",
        "of_page": lambda self, request: "",
        "user": lambda self, request: type("User", (), {"name": "", "authorization": ""})(),
    },
)()


@pytest.mark.parametrize("path", ["/ui/new", "/ui/batches/night/shots/a"])
def test_papers_stand_in_a_group(path: str) -> None:
    """The own methods come first, and those of papers in the group "Research"."""
    pages = Pages(SESSIONS, GatewaySettings(), None, None)  # type: ignore[arg-type]  # neither calls nor downloads
    page = TestClient(Starlette(routes=pages.routes()), base_url="http://127.0.0.1").get(path).text
    menu = re.search(r'<select id="method".*?</select>', page, re.DOTALL)
    assert menu is not None
    own, _, papers = menu[0].partition('<optgroup label="Research">')
    listed = [re.findall(r"<option[^>]*>(\w+)(?: \(moves the head\))?</option>", part) for part in (own, papers)]
    assert listed == [["dubstage", "portrait"], ["ugc", "everybody", "headpose", "hetero", "everyone"]]
    assert {name for part in listed for name in part} == set(METHODS)
