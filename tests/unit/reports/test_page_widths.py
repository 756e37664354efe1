"""The reports in a real Chromium: on a telephone nothing scrolls sideways, and sentences have room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.reports.pictures import beside
from gateway.reports.types import Fact
from tests.unit.batch.test_report import RECORDS, done, written
from tests.unit.reports.test_dub_report import report, write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
sync_api = pytest.importorskip("playwright.sync_api")

WARNING = (
    "the footage shows 2 faces, and face 0 (at 320,310 in frame 0, in 60 frames) is taken: the largest of 2 faces; the sound does "
    "not tell for certain who speaks (confidence: face 0 0.12, face 1 0.10). Choose another face with --face: its number"
)
PATH = "/srv/videos/a-show-with-a-long-name/season-02/episode-07/" + "shot_" * 20 + "v012.mov"
CONSENT = f"consent of Ann Example, granted by Ann Example on 2026-05-01 for dubs of {PATH} (drawer 7; until 2027-01-31T18:00:00Z)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a dub and the page of a batch, with long paths and sentences."""
    folder = tmp_path_factory.mktemp("pages")
    left = np.full((64, 64, 3), 200, np.uint8)
    facts = (Fact("footage", PATH), Fact("SHA-256", "ab" * 32), Fact("warnings of the decoder", WARNING))
    long = replace(report(), title=PATH, warnings=(WARNING, PATH), consent=CONSENT, input=facts, output=facts)
    write_report(long, folder / "dub", [beside(left, left // 2)] * 5)
    records = [done(0, warnings=(WARNING, WARNING), output=PATH), done(1, look=(WARNING,)), *RECORDS[2:]]
    batch = written(folder / "batch", records=records)
    return {"dub": folder / "dub" / "index.html", "batch": batch if batch.suffix else batch / "index.html"}


@pytest.mark.parametrize("name", ["dub", "batch"])
def test_page_fits_the_screen(browser: Any, pages: dict[str, Path], name: str) -> None:
    """No page is wider than the screen, and warnings have lines of several words."""
    page = browser.new_page()
    page.goto(pages[name].as_uri())
    for width in (390, 768, 1280, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth + 1).length"
        assert page.evaluate(cut) == 0
        room = page.evaluate("[...document.querySelectorAll('.text, ul.warnings')].map((each) => each.clientWidth)")
        assert room
        assert min(room) >= min(240, width - 120), (width, room)
    page.close()
