"""The pages of batches in a real Chromium: list, grid, player, pinned note, decisions, two people at once, another tenant."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import batch
from dubstage.gateway.v1 import batch_pb2 as pb
from tests.integration.client_calls import batch_ended
from tests.integration.test_rest import Caller
from tests.integration.test_ui import (  # noqa: F401  # browser and site are fixtures
    OTHER_TOKEN,
    PLAYER_KEYS,
    TOKEN,
    Site,
    browser,
    page_of,
    pytestmark,
    serious,
    shown,
    signed_in,
    site,
    until,
)
from tests.integration.videos import Media, write_short_clip

NOTE = "<img src=x onerror=document.title='owned'> chin"
SHAPES = """['#after', '#stage'].map((id) => document.querySelector(id)).map((one) =>
  one.videoWidth ? one.videoWidth / one.videoHeight : one.clientWidth / one.clientHeight)"""
"""Shapes of the dub and of the place where it is shown."""
SHOTS = ("ui_a", "ui_b", "ui_bad", "ui_c")
NIGHT = f"ui-night-{'n' * 31}"
NO_VIDEO = f"ui_none_{'n' * 150}.mp4"
"""Names as long as tools write them, without a space."""


@pytest.fixture(scope="module")
def night(site: Site, media: Media, carphone: Path) -> str:  # noqa: F811
    """A batch of three shots that are done and one that failed."""
    write_short_clip(carphone, media.root / "ui_video.mp4", 26, end=90)
    (media.root / NO_VIDEO).write_bytes(b"no video")
    with site.gateway.connect(token=TOKEN) as connection:
        rows = [
            batch.row(
                name,
                footage=NO_VIDEO if name == "ui_bad" else "ui_video.mp4",
                speech="speech.wav",
                output=f"{name}.mp4",
                personalize=False,
                quality=pb.BatchQuality(min_r_opening=1.0),
            )
            for name in SHOTS
        ]
        ended = batch_ended(connection, NIGHT, rows)
        assert (ended.progress.num_done, ended.progress.num_failed) == (3, 1)
    return NIGHT


def reviews_of(site: Site, shot: str) -> list[Any]:  # noqa: F811
    with site.gateway.connect(token=TOKEN) as connection:
        return list(batch.get_shot(connection, NIGHT, shot).reviews)


def test_a_review_from_the_list_to_the_decision(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """One pass: list, grid by risk, player, note pinned to frame and place, decisions by button and key, next shot."""
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/batches")
        page.click(f"a:has-text('{night}')")
        page.wait_for_selector(".shots h3 a")
        names = page.locator(".shots h3 a").all_inner_texts()
        assert (names[0], sorted(names)) == ("ui_bad", sorted(SHOTS)), "the failed shot comes first"
        assert page.locator(".shots img").count() == 3
        assert "at least 1.0 is wanted" in page.inner_text(".shots")
        assert serious(page) == []
        shown(page, "batch")
        # Other tests change the risk of shots.
        page.select_option("#order", "NAME")
        page.wait_for_url("**?order=NAME")
        page.click(".shots h3 a:has-text('ui_a')")
        page.wait_for_selector("#player:not([hidden])")
        until(page, "document.querySelector('#after').readyState >= 2")
        assert page.locator("#verdicts b").count() == 3
        assert "opens at other moments" in page.inner_text("#verdicts .bad")
        assert "missed" in page.inner_text("#verdicts details[open] >> nth=0")
        page.keyboard.press("a")
        page.wait_for_selector("#problem-reviewer:has-text('Give your name')")
        assert page.evaluate("document.activeElement.id") == "reviewer"
        assert reviews_of(site, "ui_a") == []
        page.fill("#reviewer", "Ada")
        page.keyboard.press("Tab")
        for _ in range(5):
            page.click("#forward")
        page.locator("#pins").scroll_into_view_if_needed()
        box = page.locator("#pins").bounding_box()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
        page.mouse.up()
        page.fill("#note", NOTE)
        shown(page, "shot")
        page.click("#reject")
        page.wait_for_selector("#decision:has-text('Rejected by Ada')")
        (kept,) = reviews_of(site, "ui_a")
        assert (kept.state, kept.note, kept.frame, kept.reviewer) == (pb.REVIEW_STATE_REJECTED, NOTE, 5, "Ada")
        assert [round(getattr(kept.region, name), 2) for name in ("x", "y", "width", "height")] == [0.25, 0.5, 0.5, 0.25]
        assert NOTE in page.inner_text("#history")
        assert serious(page) == []
        page.keyboard.press("n")
        page.wait_for_url("**/shots/ui_b**")
        page.wait_for_selector("#decision:has-text('Undecided')")
        page.keyboard.press("a")
        page.wait_for_selector("#decision:has-text('Approved by Ada')")
        page.fill("#assignee", "Ben")
        page.click("#assign")
        page.wait_for_selector("#decision:has-text('Assigned to Ben by Ada')")
        assert [one.state for one in reviews_of(site, "ui_b")] == [pb.REVIEW_STATE_APPROVED, pb.REVIEW_STATE_ASSIGNED]
        page = tab.open(f"{site.address}/ui/batches/{night}?review=REJECTED")
        assert set(page.locator(".shots h3 a").all_inner_texts()) - {"ui_c"} == {"ui_a"}, "another test rejects ui_c"
        assert page.is_visible("#retry")
        assert "owned" not in page.title()
        assert tab.problems == []


def test_the_original_stands_beside_the_dub(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """The page of a shot shows its footage in the media folder, under the checks of the dub; other files are not sent."""
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/batches/{night}/shots/ui_a")
        until(page, "['#before', '#after'].every((id) => document.querySelector(id).readyState >= 2)")
        assert page.evaluate("new URL(document.querySelector('#before').src).pathname") == "/ui/media/ui_video.mp4"
        assert page.is_hidden("#trouble")
        assert page.evaluate("document.querySelector('#before').videoWidth") > 0
        assert page.evaluate(SHAPES) == [pytest.approx(352 / 288, abs=0.01)] * 2, "the player squeezes no picture"
        assert tab.problems == []
        status = "(path) => fetch(path, {headers: {Range: 'bytes=0-99'}}).then((answer) => answer.status)"
        assert tab.page.evaluate(status, "/ui/media/ui_video.mp4") == 206
        # Footage of a shot that failed may be anything, so the gateway does not send it.
        assert tab.page.evaluate(status, f"/ui/media/{NO_VIDEO}") == 404
    with signed_in(browser, site, OTHER_TOKEN) as tab:
        assert tab.page.evaluate(status, "/ui/media/ui_video.mp4") == 404
    assert Caller(int(site.address.rpartition(":")[2]))("GET", "/v1/files/ui_video.mp4")[0] == 401


@pytest.mark.long
def test_originals_of_other_kinds_are_shown(browser: Any, site: Site, media: Media, carphone: Path, astronaut: Path) -> None:  # noqa: F811
    """A picture stands beside its dub; the page says if the dub is at other moments; usual values give verdicts."""
    (media.root / "ui_picture.png").write_bytes(astronaut.read_bytes())
    write_short_clip(carphone, media.root / "ui_bounce.mp4", 25, end=90)
    with site.gateway.connect(token=TOKEN) as connection:
        files = {"speech": "speech.wav", "personalize": False}
        rows = [
            batch.row("picture", footage="ui_picture.png", output="ui_picture.mp4", **files),
            batch.row("bounce", footage="ui_bounce.mp4", output="ui_bounced.mp4", fit="bounce", **files),
        ]
        assert batch_ended(connection, "ui-kinds", rows).progress.num_done == 2
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/batches/ui-kinds/shots/picture")
        until(page, "document.querySelector('#before').hasAttribute('poster')")
        assert page.evaluate("new URL(document.querySelector('#before').poster).pathname") == "/ui/media/ui_picture.png"
        assert page.is_hidden("#trouble")
        page = tab.open(f"{site.address}/ui/batches/ui-kinds/shots/bounce")
        page.wait_for_selector("#trouble:has-text('The dub has a timeline of its own')")
        assert page.locator("#verdicts li > :is(.good, .bad)").count() >= 1
        assert "usual values" in page.inner_text("#verdicts")
        assert "usually at most 0.0035" in page.locator("#verdicts").text_content()
        assert tab.problems == []


def test_an_original_that_is_gone_is_named(browser: Any, site: Site, night: str, media: Media) -> None:  # noqa: F811
    """The sentence about an original that is not shown fits the place of the file."""
    video, aside = media.root / "ui_video.mp4", media.root / "ui_aside.mp4"
    video.rename(aside)
    try:
        with signed_in(browser, site) as tab:
            page = tab.open(f"{site.address}/ui/batches/{night}/shots/ui_a")
            page.wait_for_selector("#trouble:has-text('The original is not in the media folder any more. The dub is shown alone.')")
    finally:
        aside.rename(video)


def test_failed_shots_take_no_decision(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """The page says that there is no video to decide about, and no key decides."""
    with page_of(browser, site, f"/ui/batches/{night}/shots/ui_bad") as page:
        page.wait_for_selector("#no-video:has-text('dub the shot again')")
        page.fill("#reviewer", "Ada")
        page.keyboard.press("Tab")
        page.keyboard.press("a")
        assert [page.is_enabled(f"#{name}") for name in ("approve", "reject", "assign", "redo")] == [False, False, False, True]
        assert page.is_hidden("#download")
        assert reviews_of(site, "ui_bad") == []


def test_players_have_the_same_keys(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """Keys of the page of a dub work here too, and the names on the picture are those of what is visible."""
    with page_of(browser, site, f"/ui/batches/{night}/shots/ui_a") as page:
        until(page, "['#before', '#after'].every((id) => document.querySelector(id).readyState >= 2)")
        assert page.inner_text("#keys").startswith(PLAYER_KEYS)
        for key in (".", "ArrowRight", ",", "l"):
            page.keyboard.press(key)
        page.wait_for_selector("#time:has-text('frame 1 of')")
        assert page.get_attribute("#loop", "aria-pressed") == "false"
        page.focus("#wipe")
        for key, names in (("Home", ["Dub"]), ("End", ["Original"])):
            page.keyboard.press(key)
            assert [name for name in page.locator("#stage .name").all_inner_texts() if name] == names


@pytest.mark.long
def test_a_batch_is_cancelled_and_removed(browser: Any, site: Site, media: Media, carphone: Path, tmp_path: Path) -> None:  # noqa: F811
    """The page of a batch that runs shows its progress, saves videos and report, and cancels and removes the batch by keyboard."""
    write_short_clip(carphone, media.root / "ui_quick.mp4", 25, end=70)
    write_short_clip(carphone, media.root / "ui_slow.mp4", 60, end=90, times=6)
    with site.gateway.connect(token=TOKEN) as connection:
        names = {"quick": "ui_quick.mp4", "slow": "ui_slow.mp4", "later": "ui_slow.mp4"}
        rows = [batch.row(one, footage=file, speech="speech.wav", output=f"ui_{one}_dub.mp4") for one, file in names.items()]
        rows[0].dub.skip_personalization = True
        batch.submit(connection, "ui-stopped", rows=rows)
    with page_of(browser, site, "/ui/batches/ui-stopped") as page:
        page.wait_for_selector(".shots li:has-text('quick') a:has-text('Download')")
        page.wait_for_selector(".shots li:has-text('Running for') >> nth=0")
        assert "of the shots have ended" in page.inner_text("#running")
        assert page.is_hidden("#remove")
        assert serious(page) == []
        with page.expect_download() as download:
            page.get_by_label("Download quick").click()
        download.value.save_as(tmp_path / "quick.mp4")
        assert (tmp_path / "quick.mp4").read_bytes() == (media.root / "ui_quick_dub.mp4").read_bytes()
        page.focus("#cancel")
        page.keyboard.press("Enter")
        page.click("dialog button:has-text('Keep')")
        assert page.is_visible("#cancel")
        page.focus("#cancel")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#remove:visible")
        assert (page.is_hidden("#running"), page.is_visible("#again")) == (True, True)
        page.wait_for_selector(".shots li:has-text('later'):has-text('Cancelled')")
        with page.expect_download() as download:
            page.click("#report")
        download.value.save_as(tmp_path / "report.zip")
        with zipfile.ZipFile(tmp_path / "report.zip") as report:
            assert report.testzip() is None
            assert {"index.html", "shots.csv", "shots.json", "thumbnails/quick.jpg"} <= set(report.namelist())
            assert b"quick" in report.read("shots.csv")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        shown(page, "batch-390")
        page.click("#remove")
        assert "videos stay" in page.inner_text("dialog")
        page.click("dialog .danger")
        page.wait_for_url("**/ui/batches")
    assert (media.root / "ui_quick_dub.mp4").is_file()
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/batches/ui-stopped/report")
        assert "No batch 'ui-stopped'" in page.inner_text("main")


@pytest.mark.long
def test_a_redo_beside_the_earlier_video(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """The form of a redo has the present options, and the new video stands beside the earlier one, also after a reload."""
    with page_of(browser, site, f"/ui/batches/{night}/shots/ui_b") as page:
        page.wait_for_selector("#redo:enabled")
        until(page, "document.querySelector('#after').readyState >= 2")
        page.evaluate("window.sameLoad = true")
        page.click("#redo")
        page.wait_for_selector("#again[open]")
        assert (page.input_value("#expressiveness"), page.input_value("#face"), page.is_checked("#adapt")) == ("1", "auto", False)
        assert serious(page) == []
        shown(page, "redo")
        page.fill("#expressiveness", "9")
        page.click("#again button[value=yes]")
        assert page.is_visible("#again"), "a wrong value keeps the form open"
        page.fill("#expressiveness", "0.5")
        page.fill("#face", "0")
        page.click("#again button[value=yes]")
        page.wait_for_selector("#compare option:has-text('Earlier dub: expressiveness 1')", state="attached")
        page.wait_for_selector("#decision:has-text('Undecided')")
        until(page, "document.querySelector('#before').readyState >= 2 && document.querySelector('#after').readyState >= 2")
        assert page.evaluate("window.sameLoad")
        assert page.input_value("#wipe") == "50"
        assert serious(page) == []
        shown(page, "redone")
        page.click("#redo")
        assert (page.input_value("#expressiveness"), page.input_value("#face")) == ("0.5", "0")
        page.click("#again button[value=no]")
        page.reload()
        page.wait_for_selector("#compare option:has-text('Earlier dub: expressiveness 1')", state="attached")
        until(page, "document.querySelector('#before').readyState >= 2 && document.querySelector('#after').readyState >= 2")
        first, second = (page.evaluate(f"document.querySelector('#{side}').src") for side in ("before", "after"))
        assert first != second


@pytest.mark.long
def test_two_people_hear_of_each_other(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """Each of two people is told what the other has decided meanwhile."""
    with signed_in(browser, site) as first, signed_in(browser, site) as second:
        for tab, name in ((first, "Ada"), (second, "Ben")):
            tab.page.goto(f"{site.address}/ui/batches/{night}/shots/ui_c")
            tab.page.wait_for_selector("#approve:enabled")
            tab.page.fill("#reviewer", name)
        first.page.click("#approve")
        first.page.wait_for_selector("#decision:has-text('Approved by Ada')")
        second.page.click("#reject")
        second.page.wait_for_selector("#decision:has-text('Rejected by Ben')")
        first.page.wait_for_selector("#meanwhile:has-text('Rejected by Ben')")
        assert [one.reviewer for one in reviews_of(site, "ui_c")][-2:] == ["Ada", "Ben"]


@pytest.mark.long
def test_small_screens_and_strangers(browser: Any, site: Site, night: str) -> None:  # noqa: F811
    """The pages fit 390 px, and another tenant sees neither the batch nor the shot."""
    with signed_in(browser, site, viewport={"width": 390, "height": 800}, color_scheme="dark") as tab:
        for path in ("", f"/{night}", f"/{night}/shots/ui_bad", f"/{night}/shots/ui_a"):
            page = tab.open(f"{site.address}/ui/batches{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert serious(page) == []
        shown(page, "shot-390-dark")
    with signed_in(browser, site, OTHER_TOKEN) as tab:
        page = tab.open(f"{site.address}/ui/batches/{night}/shots/ui_a")
        page.wait_for_selector("#refusal:not([hidden])")
        assert NIGHT in page.inner_text("#refusal")
        page = tab.open(f"{site.address}/ui/batches")
        assert "No batches yet" in page.inner_text("#list")
