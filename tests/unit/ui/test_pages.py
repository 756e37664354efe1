"""Tests of what pages offer, without a browser."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.reports.scales import SCALES
from gateway.settings import GatewaySettings
from gateway.ui.pages import SWAGGER_PACKAGE, Pages, usual_values, zipped
from gateway.ui.session import Sessions
from services.common.methods import METHODS


async def answer(path: str, values: dict[str, str] | None = None) -> tuple[int, str]:
    """Return the status and the text of a page that calls nothing."""
    settings, never = GatewaySettings(), lambda *_: None
    pages: Any = Pages(Sessions(settings), settings, never, never, never)  # type: ignore[arg-type]  # these pages call nothing
    (route,) = (route for route in pages.routes() if isinstance(route, Route) and route.path == path)
    headers = [(b"host", b"127.0.0.1:8600")]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b"", "path_params": values or {}}
    response = await route.endpoint(Request(scope))
    return response.status_code, bytes(response.body).decode()


@pytest.mark.parametrize("path", ["/ui/new", "/ui/batches/{batch}/shots/{shot}"])
async def test_papers_stand_in_a_group(path: str) -> None:
    """The own methods come first, and those of papers in the group "Research"."""
    _, page = await answer(path, {"batch": "night", "shot": "a"} if "{" in path else {})
    menu = re.search(r'<select id="method".*?</select>', page, re.DOTALL)
    assert menu is not None
    own, _, papers = menu[0].partition('<optgroup label="Research">')
    listed = [re.findall(r"<option[^>]*>(\w+)(?: \(moves the head\))?</option>", part) for part in (own, papers)]
    assert listed == [["dubstage", "portrait"], ["ugc", "everybody", "headpose", "hetero", "everyone"]]
    assert {name for part in listed for name in part} == set(METHODS)


async def test_missing_swagger_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its package, the page of the API says what to install: the version of the extra `gateway`."""
    monkeypatch.setitem(sys.modules, "swagger_ui_bundle", None)
    status, page = await answer("/v1/docs")
    assert (status, f"pip install {SWAGGER_PACKAGE}" in page) == (501, True)
    assert f'"{SWAGGER_PACKAGE}"' in (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert (await answer("/ui/swagger/swagger-ui.css"))[0] == 404


def test_usual_values_are_of_shots() -> None:
    """Each figure with a usual value is a field of Shot, and times are in seconds."""
    values = usual_values()
    for path in values:
        message: Any = pb.Shot.DESCRIPTOR
        *groups, last = path.split(".")
        for group in groups:
            message = message.fields_by_camelcase_name[group].message_type
        assert last in message.fields_by_camelcase_name, path
    assert len(values) == len(SCALES.keys() - {"undubbed_share"})
    assert values["finish.lateness"] == (-0.04, 0.04)


async def test_reports_become_zip_files() -> None:
    """The pieces of a file follow each other, and a file may be empty."""

    async def further() -> AsyncIterator[pb.GetReportResponse]:
        for path, data in (("index.html", b"two"), ("shots.csv", b""), ("thumbnails/a.jpg", b"picture")):
            yield pb.GetReportResponse(path=path, data=data)

    data = b"".join([part async for part in zipped(pb.GetReportResponse(path="index.html", data=b"one "), further())])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {"index.html": b"one two", "shots.csv": b"", "thumbnails/a.jpg": b"picture"}
