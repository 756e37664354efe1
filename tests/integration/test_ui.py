"""The pages in a real Chromium: a dub from upload to download, people, refusals, and how the pages look to tools for access."""

import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dubstage.client import batch
from dubstage.client import gateway as gateway_client
from gateway.dub.progress import STEP_NAMES
from tests.contract.ports import free_port
from tests.integration.client_calls import batch_ended, dubbing, enrolment
from tests.integration.servers import RunningGateway, RunningStages, StartGateway
from tests.integration.videos import NUM_FRAMES, Media, write_short_clip

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
axe_playwright_python = pytest.importorskip("axe_playwright_python.sync_playwright")
sync_api = pytest.importorskip("playwright.sync_api")

TOKEN, OTHER_TOKEN = "token-of-studio-one", "token-of-studio-two"
MARKUP = "<img src=x onerror=document.title='owned'> one.mp4"
"""Name of footage that would run a script if a page read the name as markup."""
ERASED = "ui_erased.mp4"
FRAMES = 27
"""Frames of the footage: a number of no other test, as the blobs of a dub go with its job, and databases share the store."""
WAIT_MS = 120_000
PLAYER_KEYS = "Keys: Space plays and pauses, ← or , steps one frame back, → or . steps one frame forward, L loops"


@dataclass
class Site:
    gateway: RunningGateway
    address: str
    footage: Path
    speech: Path


@dataclass
class Tab:
    """A page of the browser, with what its console said."""

    page: Any
    problems: list[str] = field(default_factory=list)

    def open(self, address: str) -> Any:
        self.page.goto(address)
        self.page.wait_for_load_state("networkidle")
        return self.page


@pytest.fixture(scope="module")
def site(module_gateway, media, carphone, tmp_path_factory) -> Site:
    folder = tmp_path_factory.mktemp("ui")
    port = free_port()
    running = module_gateway(http_port=port, tokens=[TOKEN, f"other {OTHER_TOKEN}"])
    footage = folder / MARKUP
    write_short_clip(carphone, footage, FRAMES)
    write_short_clip(carphone, media.root / ERASED, NUM_FRAMES + 5)
    return Site(running, f"http://127.0.0.1:{port}", footage, media.speech)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


@contextmanager
def tab_of(browser: Any, **options: Any) -> Iterator[Tab]:
    with browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}) as context:
        context.set_default_timeout(WAIT_MS)
        tab = Tab(context.new_page())
        tab.page.on("console", lambda said: tab.problems.append(said.text) if said.type in ("error", "warning") else None)
        tab.page.on("pageerror", lambda error: tab.problems.append(str(error)))
        yield tab


@contextmanager
def signed_in(browser: Any, site: Site, token: str = TOKEN, **options: Any) -> Iterator[Tab]:
    """A tab that has signed in as `dubstage ui` opens the browser."""
    with tab_of(browser, **options) as tab:
        tab.page.goto(f"{site.address}/ui/sign-in#{token}")
        tab.page.wait_for_url("**/ui/dubs")
        tab.page.wait_for_load_state("networkidle")
        yield tab


@contextmanager
def page_of(browser: Any, site: Site, path: str, token: str = TOKEN, **options: Any) -> Iterator[Any]:
    """A page of a user who has signed in, whose console has no problems in the end."""
    with signed_in(browser, site, token, **options) as tab:
        yield tab.open(f"{site.address}{path}")
        assert tab.problems == []


def serious(page: Any) -> list[str]:
    found = axe_playwright_python.Axe().run(page).response["violations"]
    bad = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in bad for node in rule["nodes"]]


def shown(page: Any, name: str) -> None:
    """Keep a picture of the page where a person wants to look at it."""
    if folder := os.environ.get("DUBSTAGE_UI_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def give_files(site: Site, page: Any) -> None:
    page.set_input_files("#footage-file", site.footage)
    page.set_input_files("#speech-file", site.speech)
    page.wait_for_selector(".face")
    page.click("#options summary")
    page.check("#quick")
    page.wait_for_selector("#create:enabled")


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true. Playwright's own wait would evaluate a text inside the page, which its policy forbids."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def times_of(page: Any) -> list[float]:
    return page.evaluate("['#before', '#after'].map((id) => document.querySelector(id).currentTime)")


@pytest.fixture(scope="module")
def dub(site: Site, browser: Any) -> str:
    """Path of the page of a finished dub, made by hand on the pages."""
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/new")
        give_files(site, page)
        assert MARKUP in page.inner_text("#footage-state")
        assert page.inner_text("#plan .tile b") == f"{FRAMES} of {FRAMES}"
        assert serious(page) == []
        page.click("#create")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#steps li")
        page.wait_for_selector("#result:not([hidden])")
        page.wait_for_load_state("networkidle")
        assert page.title().startswith(MARKUP), "the name of the user's file"
        assert tab.problems == []
        return str(page.evaluate("location.pathname"))


def test_dub_from_upload_to_download(site: Site, dub: str, browser: Any, media: Media, tmp_path: Path) -> None:
    """A reload of a finished dub loses nothing: its frames, mouths, sounds and options are shown, and the video is downloaded."""
    with page_of(browser, site, dub) as page:
        until(page, "document.querySelector('#after').readyState >= 2")
        assert page.inner_text("#facts td >> nth=0") == f"{FRAMES} of {FRAMES}"
        assert "DUBBED" in page.inner_text("#reasons")
        assert page.is_visible("#opening")
        drawn = """document.querySelector(id).getContext('2d').getImageData(0, 0, 480, 300).data.some((value, place) =>
            place % 4 < 3 && value)"""
        until(page, f"['#mouth-before', '#mouth-after'].every((id) => {drawn})")
        assert serious(page) == []
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "video.mp4")
        digest = hashlib.sha256((tmp_path / "video.mp4").read_bytes()).hexdigest()
        until(page, f"document.querySelector('#facts').innerText.includes('{digest}')")
        assert page.inner_text("#facts tr:has-text('SHA-256 of the file') td") == digest
        # Other tests may have begun further dubs of the footage.
        assert (tmp_path / "video.mp4").read_bytes() in [path.read_bytes() for path in media.root.glob("img-src-x*-dub-*.mp4")]


def test_player_steps_in_lock_step(site: Site, dub: str, browser: Any) -> None:
    """Keys step both videos by one frame; while they play, they stay within half a frame; the wipe follows key and mouse."""
    with page_of(browser, site, dub) as page:
        until(page, "['#before', '#after'].every((id) => document.querySelector(id).readyState >= 2)")
        for key in (".", "ArrowRight", ".", "ArrowRight", "ArrowLeft", ","):
            page.keyboard.press(key)
            until(page, "['#before', '#after'].every((id) => !document.querySelector(id).seeking)")
        assert times_of(page) == pytest.approx([2.5 / 25, 2.5 / 25], abs=1e-3)
        page.wait_for_selector("#time:has-text('frame 2 of')")
        page.keyboard.press("Space")
        page.wait_for_timeout(800)
        before, after = times_of(page)
        assert after > 0.3
        assert abs(before - after) < 0.1
        page.keyboard.press("Space")
        until(page, "['#before', '#after'].every((id) => !document.querySelector(id).seeking)")
        before, after = times_of(page)
        assert before == pytest.approx(after, abs=1e-3)
        page.keyboard.press("l")
        assert page.get_attribute("#loop", "aria-pressed") == "false"
        assert not page.evaluate("document.querySelector('#after').loop")
        assert page.inner_text("#keys") == PLAYER_KEYS + "."
        page.focus("#wipe")
        for key, share, names in (("Home", "0%", ["Dub"]), ("End", "100%", ["Original"]), ("ArrowLeft", "99%", ["Original"])):
            page.keyboard.press(key)
            assert page.evaluate("document.querySelector('#stage').style.getPropertyValue('--wipe')") == share
            assert [name for name in page.locator("#stage .name").all_inner_texts() if name] == names
        box = page.locator("#stage").bounding_box()
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
        assert abs(float(page.input_value("#wipe")) - 75) <= 1
        page.locator("#lanes").click(position={"x": page.locator("#lanes").bounding_box()["width"] / 2, "y": 10})
        until(page, f"Math.abs(document.querySelector('#position').value - {FRAMES // 2}) <= 1")


def test_unplayable_original_leaves_the_dub(site: Site, dub: str, browser: Any) -> None:
    """An original that the browser cannot play is said to be so, and the dub is shown alone."""
    with signed_in(browser, site) as tab:
        answer = {"status": 200, "content_type": "video/mp4", "body": b"no video"}
        tab.page.route("**/ui/media/uploads/**", lambda route: route.fulfill(**answer))
        page = tab.open(f"{site.address}{dub}")
        page.wait_for_selector("text=This browser cannot play the original.")
        assert page.input_value("#wipe") == "0"
        assert page.is_hidden("#mouth-before")
        assert page.is_visible("#mouth-after")


@pytest.mark.long
def test_an_original_that_is_gone_is_named(site: Site, browser: Any, media: Media) -> None:
    """A removed upload is said to be one, and footage of the media folder is shown, or said to be gone from that folder."""
    aside = media.root / "ui_aside.mp4"
    for uri, gone in (("uploads/ui_gone.mp4", "the upload was removed, or has expired"), ("ui_own.mp4", "not in the media folder")):
        footage = media.root / uri
        footage.parent.mkdir(exist_ok=True)
        shutil.copy(site.footage, footage)
        with site.gateway.connect(token=TOKEN) as connection:
            made = gateway_client.dub(connection, **dubbing(f"dub_of_{footage.name}", footage=uri))
            made.wait(timeout_s=300)
        path = f"/ui/dubs/{made.name.rpartition('/')[2]}"
        with signed_in(browser, site) as tab:
            page = tab.open(f"{site.address}{path}")
            until(page, "document.querySelector('#before').readyState >= 2")
            assert page.is_hidden("#trouble")
            footage.rename(aside)
            try:
                page.reload()
                page.wait_for_selector(f"#trouble:has-text('{gone}')")
            finally:
                aside.rename(footage)
        footage.unlink()


def test_errors_have_the_users_names(site: Site, browser: Any, tmp_path: Path) -> None:
    """A file that is no video is named as the user chose it, not as the upload is called."""
    broken = tmp_path / "Take 3 (final) äö.mp4"
    broken.write_bytes(b"no video " * 100)
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/new")
        page.set_input_files("#footage-file", broken)
        page.set_input_files("#speech-file", site.speech)
        page.wait_for_selector("#plan .bad")
        page.wait_for_selector("#problem-footage-file")
        assert page.get_attribute("#footage-file", "aria-invalid") == "true"
        assert page.is_hidden("#refusal"), "the card of the file says so"
        for place in ("#plan .bad", "#problem-footage-file"):
            text = page.inner_text(place)
            assert broken.name in text, text
            assert not re.search(r"uploads/|Take-3", text), text


@pytest.mark.long
def test_preview_from_the_form(site: Site, browser: Any) -> None:
    """The form says what a longer speech means, and previews the dub; the dub itself follows with the same options."""
    with page_of(browser, site, "/ui/new") as page:
        give_files(site, page)
        assert "the speech is cut there" in page.inner_text("#plan")
        shown(page, "new")
        page.click("#preview")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#about").startswith("Preview of the first seconds, with the speech of speech.wav")
        page.click("#again")
        page.wait_for_selector("#create:enabled")
        assert page.is_checked("#quick")


@pytest.mark.long
def test_preview_enlarges_the_same_mouth(site: Site, browser: Any, carphone: Path, tmp_path: Path) -> None:
    """A preview of half the size and its original show the same part of the picture as the mouth."""
    double, large = tmp_path / "double.mp4", tmp_path / "large.mp4"
    write_short_clip(carphone, double, FRAMES)
    write_short_clip(double, large, FRAMES)
    with page_of(browser, site, "/ui/new") as page:
        give_files(replace(site, footage=large), page)
        page.click("#preview")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#result:not([hidden])")
        until(page, "['#before', '#after'].every((id) => document.querySelector(id).readyState >= 2)")
        page.evaluate("""() => {
            window.shares = {};
            const draw = CanvasRenderingContext2D.prototype.drawImage;
            CanvasRenderingContext2D.prototype.drawImage = function (video, left, top, width, height, ...rest) {
                const [whole, high] = [video.videoWidth, video.videoHeight];
                window.shares[this.canvas.id] = [whole, left / whole, top / high, width / whole, height / high];
                draw.call(this, video, left, top, width, height, ...rest);
            };
        }""")
        page.click("#forward")
        until(page, "window.shares['mouth-before'] && window.shares['mouth-after']")
        (wide, *original), (half, *preview) = (page.evaluate(f"window.shares['mouth-{name}']") for name in ("before", "after"))
    assert wide == 2 * half == 704
    assert original == pytest.approx(preview)
    left, top, width, height = preview
    assert 0.2 < left < left + width < 0.8
    assert 0.4 < top < top + height < 0.95


@pytest.mark.long
def test_preview_from_players_position(site: Site, browser: Any) -> None:
    """The form previews from where the player of the footage stands, and the page of the preview shows the original from there."""
    with page_of(browser, site, "/ui/new") as page:
        give_files(site, page)
        assert page.inner_text("#preview") == "Preview the first seconds"
        page.evaluate("document.querySelector('#footage-preview').currentTime = 0.5")
        # Frame 12 of 27 is shown, from 0.48 s on.
        page.wait_for_selector("#preview:has-text('Preview from 0.48 s on')")
        page.select_option("#fit", "FIT_LOOP")
        assert page.inner_text("#preview") == "Preview the first seconds", "a loop has a timeline of its own"
        page.select_option("#fit", "FIT_CUT")
        with page.expect_request(lambda asked: asked.url.endswith("/v1/dubs") and asked.method == "POST") as sent:
            page.click("#preview")
        dub = sent.value.post_data_json["dub"]
        assert (dub["preview"], dub["previewTime"]) == (True, "0.48s")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#result:not([hidden])")
        assert page.inner_text("#about").startswith("Preview of some seconds from 0.48 s on, with the speech of speech.wav")
        assert "of 15" in page.inner_text("#facts")
        until(page, "document.querySelector('#before').readyState >= 2 && document.querySelector('#after').readyState >= 2")
        page.click("#forward")
        original, preview = (f"document.querySelector('#{name}').currentTime" for name in ("before", "after"))
        until(page, f"Math.abs({original} - {preview} - 0.48) < 1e-3")
        shown(page, "preview")


@pytest.mark.long
def test_start_again_beside_the_first(site: Site, dub: str, browser: Any) -> None:
    """The form takes files and options of an earlier dub; the second dub can be put beside the first."""
    with page_of(browser, site, dub) as page:
        page.click("#again")
        page.wait_for_selector(".face")
        assert page.is_checked("#quick")
        page.select_option("#expression", "EXPRESSION_NEUTRAL")
        page.select_option("#encode-quality", "small")
        page.wait_for_selector("#create:enabled")
        page.click("#create")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#versions-card:not([hidden])")
        assert "expression keep where possible" in page.inner_text("#versions")
        shown(page, "second")
        page.wait_for_selector("text=Quality of the pictures")
        # The first entry is the original. Another test may have made a preview.
        page.locator("#versions li", has_not_text="preview").nth(1).get_by_role("button").click()
        until(page, "document.querySelector('#before').readyState >= 2")
        assert page.inner_text(".name.before").startswith("Dub of")
        assert "-dub-" in page.evaluate("document.querySelector('#before').src")


@pytest.mark.long
def test_list_of_dubs_is_searched(browser: Any, site: Site, dub: str, media: Media) -> None:
    """The list shows a picture of each dub, finds dubs by words, and lets the user remove a dub; the dub's video stays."""
    with site.gateway.connect(token=TOKEN) as connection:
        made = gateway_client.dub(connection, **dubbing("ui_removed.mp4", project="harbour"))
        made.wait(timeout_s=300)
    with page_of(browser, site, "/ui/dubs") as page:
        row = page.locator("tbody tr").filter(has=page.locator(f"a[href$='{made.name.rpartition('/')[2]}']"))
        until(page, "document.querySelector('video.thumb')?.readyState >= 2")
        page.fill("#search", "harbour done")
        page.wait_for_selector("tbody tr:nth-child(2)", state="detached")
        assert row.count() == 1
        page.fill("#search", "no such word")
        page.wait_for_selector("text=No dub fits.")
        page.fill("#search", "")
        shown(page, "dubs")
        assert serious(page) == []
        row.locator("button").click()
        page.click("dialog button.danger")
        row.wait_for(state="detached")
        assert (media.root / "ui_removed.mp4").is_file()
        page.goto(f"{site.address}/ui/dubs")
        page.wait_for_selector("tbody tr")
        assert row.count() == 0


def test_consent_record_is_read(site: Site, browser: Any, start_gateway: StartGateway, tmp_path: Path) -> None:
    """A gateway that requires consent refuses the plan in a sentence, until a record of this footage is given."""
    port = free_port()
    start_gateway(http_port=port, require_consent="true")
    record = {**enrolment("", of=site.footage)["consent"], "subject": "Driver <b>", "granted_by": "Driver"}
    (tmp_path / "driver.json").write_text(json.dumps(record))
    (tmp_path / "list.json").write_text("[]")
    with tab_of(browser) as tab:
        page = tab.open(f"http://127.0.0.1:{port}/ui/new")
        page.set_input_files("#footage-file", site.footage)
        page.set_input_files("#speech-file", site.speech)
        page.wait_for_selector("#plan .bad")
        assert "consent" in page.inner_text("#plan .bad")
        page.set_input_files("#consent-file", tmp_path / "list.json")
        page.wait_for_selector("text=is no consent record")
        page.set_input_files("#consent-file", tmp_path / "driver.json")
        page.wait_for_selector("text=Record of Driver <b>, given by Driver")
        page.wait_for_selector("#create:enabled")


@pytest.mark.long
def test_recorded_speech_is_uploaded(site: Site, browser: Any) -> None:
    """The microphone's sound becomes the new speech."""
    with page_of(browser, site, "/ui/new") as page:
        page.click("#record")
        page.wait_for_timeout(1500)
        page.click("#record")
        until(page, "document.querySelector('#speech-state').textContent.startsWith('recording.webm, ')")
        page.set_input_files("#footage-file", site.footage)
        page.wait_for_selector("#create:enabled")


@pytest.mark.long
def test_running_dub_is_cancelled(site: Site, browser: Any) -> None:
    """A dub that adapts its networks takes long enough to be cancelled on its page."""
    with page_of(browser, site, "/ui/new") as page:
        give_files(site, page)
        page.uncheck("#quick")
        page.wait_for_selector("#create:enabled")
        page.click("#create")
        page.wait_for_selector("#steps li.now")
        assert {step.split(" (")[0] for step in page.locator("#steps li").all_inner_texts()} <= {*STEP_NAMES.values()}
        page.click("#cancel")
        page.click("dialog .danger")
        page.wait_for_selector("#failed:not([hidden])")
        assert page.inner_text("#failed-title") == "This dub was cancelled"


@pytest.mark.long
def test_broken_upload_goes_on(site: Site, browser: Any, tmp_path: Path) -> None:
    """A page that is closed during an upload goes on where it was when the same file is chosen again."""
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(range(256)) * (80 << 10))
    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/new")
        pieces = []
        page.on("request", lambda request: pieces.append(request.headers.get("content-range", "")))
        page.route(
            "**/v1/uploads/*",
            lambda route: route.abort() if "-16777215/" in route.request.headers.get("content-range", "") else route.continue_(),
        )
        with page.expect_event("requestfailed", lambda request: "-16777215/" in request.headers.get("content-range", "")):
            page.set_input_files("#footage-file", large)
        until(page, "document.querySelector('#footage-state').textContent.includes('8.4 MB of 21 MB')")
        page.goto("about:blank")
        page.unroute_all(behavior="ignoreErrors")
        pieces.clear()
        tab.open(f"{site.address}/ui/new")
        page.set_input_files("#footage-file", large)
        until(page, "document.querySelector('#footage-state').textContent === 'large.mp4, 21 MB'")
        assert next(filter(None, pieces)).startswith("bytes 8388608-")


@pytest.mark.long
def test_people_withdrawal_and_erasure(site: Site, browser: Any) -> None:
    """A person's consent is shown, withdrawn and the person erased, after questions that name the person; the receipt is saved."""
    with site.gateway.connect(token=TOKEN) as connection:
        # Other footage than other actors have: an erasure takes its blobs along.
        gateway_client.enrol(connection, **enrolment("on-page", footage=ERASED)).wait(timeout_s=300)
        gateway_client.dub(connection, **dubbing("ui_first.mp4", footage=ERASED, actor_id="on-page")).wait(timeout_s=300)
        row = batch.row("one", footage=ERASED, speech="speech.wav", output="ui_second.mp4", actor_id="on-page")
        assert batch_ended(connection, "ui-person", [row]).progress.num_done == 1
    with page_of(browser, site, "/ui/people") as page:
        card = page.locator("section.card", has=page.locator("#name-on-page"))
        name = card.locator("h2").inner_text().split(" on-page")[0]
        assert "Consent on record" in card.inner_text()
        assert card.locator("tr:has-text('Dubs made') td").inner_text().startswith("2, "), "the dub, and the shot of the batch"
        assert card.locator("tr:has-text('Newest dubs') a").all_inner_texts() == ["ui_first.mp4"]
        picture = card.locator("img.portrait")
        picture.scroll_into_view_if_needed()
        until(page, "document.querySelector('[aria-labelledby=name-on-page] img.portrait').naturalHeight > 40")
        assert picture.get_attribute("alt") == f"Picture of {name}"
        assert serious(page) == []
        shown(page, "people")
        card.get_by_role("button", name="Withdraw consent").click()
        assert name in page.inner_text("dialog h2")
        assert serious(page) == []
        page.click("dialog .danger")
        page.wait_for_selector("text=Work not allowed")
        assert picture.count() == 0
        assert card.locator(".portrait").inner_text() == name[0].upper()
        shown(page, "people-withdrawn")
        card.get_by_role("button", name="Erase person").click()
        assert name in page.inner_text("dialog h2")
        page.click("dialog button[value=no]")
        assert card.is_visible()
        card.get_by_role("button", name="Erase person").click()
        page.click("dialog .danger")
        page.wait_for_selector("text=is erased")
        with page.expect_download() as download:
            page.click("text=Save the receipt")
        assert json.loads(Path(download.value.path()).read_bytes())["actor_id"] == "on-page"


@pytest.mark.long
def test_people_come_a_page_at_a_time(site: Site, browser: Any) -> None:
    """An installation may have a million people: the page asks for some, and for more when the user does."""
    with site.gateway.connect(token=TOKEN) as connection:
        there = [actor.name for actor in gateway_client.list_actors(connection)]
        for actor_id in ("first", "second")[len(there) :]:
            asked = enrolment(actor_id)
            # Another record than that of the person whose consent is withdrawn.
            asked["consent"] |= {"reference": "box 8"}
            gateway_client.enrol(connection, **asked).wait(timeout_s=300)
            there.append(actor_id)
    with signed_in(browser, site) as tab:
        one_each = re.compile(r"/v1/actors\?pageSize=50")
        tab.page.route(one_each, lambda route: route.continue_(url=route.request.url.replace("pageSize=50", "pageSize=1")))
        page = tab.open(f"{site.address}/ui/people")
        for number in range(1, len(there)):
            until(page, f"document.querySelectorAll('#people section.card').length === {number}")
            page.get_by_role("button", name="Show more people").click()
        until(page, f"document.querySelectorAll('#people section.card').length === {len(there)}")
        assert page.get_by_role("button", name="Show more people").count() == 0
        assert serious(page) == []
        assert tab.problems == []


def test_wrong_token_refused(site: Site, browser: Any) -> None:
    """A page without a session leads to the sign-in, which says that a token is wrong, and leads back."""
    with tab_of(browser) as tab:
        page = tab.open(f"{site.address}/ui/people")
        assert "/ui/sign-in?next=/ui/people" in page.url
        assert serious(page) == []
        page.fill("#token", "wrong")
        page.click("#sign-in button")
        page.wait_for_selector("text=does not accept this token")
        page.fill("#token", TOKEN)
        page.click("#sign-in button")
        page.wait_for_url("**/ui/people")
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.click("text=Sign out")
        page.wait_for_url("**/ui/sign-in")
        assert page.context.cookies() == []


def test_links_sign_nobody_in(site: Site, browser: Any) -> None:
    """A link of another page, and any link for a user who is signed in, signs in only with a click (login CSRF)."""
    link = f"{site.address}/ui/sign-in#{OTHER_TOKEN}"
    with tab_of(browser) as tab:
        tab.page.set_content(f'<a href="{link}">a video</a>')
        tab.page.click("a")
        tab.page.wait_for_selector("#from-link:not([hidden])")
        assert (tab.page.context.cookies(), tab.page.url) == ([], f"{site.address}/ui/sign-in")
        assert serious(tab.page) == []
        tab.page.click("#sign-in button")
        tab.page.wait_for_url("**/ui/dubs")
    with signed_in(browser, site) as tab:
        before = tab.page.context.cookies()
        tab.page.goto(link)
        tab.page.wait_for_selector("#from-link:not([hidden])")
        assert tab.page.context.cookies() == before
        # The cookie of a gateway whose token has changed, such as that of `dubstage ui`, is no session.
        tab.page.context.add_cookies([{**before[0], "value": "b2xk"}])
        tab.page.goto("about:blank")
        tab.page.goto(link)
        tab.page.wait_for_url("**/ui/dubs")


def test_api_page_tries_calls(site: Site, browser: Any) -> None:
    """Anybody reads the page of the OpenAPI document; its calls need a token. It keeps to the policy of all pages."""
    pytest.importorskip("swagger_ui_bundle")
    with tab_of(browser) as tab:
        policies = [
            tab.page.goto(f"{site.address}{path}").headers["content-security-policy"] for path in ("/ui/sign-in", "/v1/docs")
        ]
        assert policies[0] == policies[1]
        page, call = tab.page, "#operations-DubService-ListDubs"
        page.click(call)
        page.click(f"{call} .try-out__btn")
        page.click(f"{call} .execute")
        page.wait_for_selector(f"{call} .live-responses-table :text('UNAUTHENTICATED')")
        page.click(".auth-wrapper .authorize")
        page.fill(".auth-container input", TOKEN)
        page.click(".auth-container button[type=submit]")
        page.click(".auth-container .btn-done")
        assert ["401" in text for text in tab.problems] == [True]
        page.click(f"{call} .execute")
        page.wait_for_selector(f"{call} .live-responses-table :text('nextPageToken')")
        page.click("#operations-DubService-CreateDub")
        assert "footageUri" in page.inner_text("#operations-DubService-CreateDub .body-param__example")
        shown(page, "api")
        assert len(tab.problems) == 1


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_on_a_phone(site: Site, dub: str, browser: Any, scheme: Any) -> None:
    """At a width of 390 pixels nothing scrolls sideways, in light and dark colours, and axe finds nothing serious."""
    with signed_in(browser, site, viewport={"width": 390, "height": 844}, color_scheme=scheme) as tab:
        for path in ("/ui/dubs", "/ui/new", "/ui/people", dub, "/ui/sign-in"):
            page = tab.open(f"{site.address}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert serious(page) == [], path
        assert tab.problems == []


class _Foreign(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[str]:
    """Address of a page of another origin on the same host, to which a browser sends the same cookies."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Foreign)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_other_origin_refused(site: Site, browser: Any, foreign: str) -> None:
    """A page of another origin cannot use the session: no call reads or changes anything, and no form signs out."""
    with signed_in(browser, site) as tab:
        withheld: dict[str, str] = {}
        tab.page.on("requestfailed", lambda request: withheld.__setitem__(f"{request.method} {request.url}", request.failure))
        tab.page.goto(foreign)
        call = """([verb, address]) => fetch(address, {method: verb, mode: "no-cors", credentials: "include", body: verb === "POST"
            ? JSON.stringify({webhookId: "mine", url: "https://example.com/"}) : undefined}).then(() => {}, () => {})"""
        tab.page.evaluate(call, ["GET", f"{site.address}/v1/operations"])
        tab.page.evaluate(call, ["POST", f"{site.address}/v1/webhooks"])
        for verb, path in (("GET", "/v1/operations"), ("POST", "/v1/webhooks")):
            assert withheld[f"{verb} {site.address}{path}"] == "net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin"
        (cookie,) = tab.page.context.cookies()
        session = f"{cookie['name']}={cookie['value']}"
        connection = http.client.HTTPConnection(site.address.removeprefix("http://"))
        for verb, path, status in (("GET", "/v1/operations", 401), ("POST", "/v1/webhooks", 403)):
            headers = {"Cookie": session, "Sec-Fetch-Site": "same-site", "Origin": foreign.rstrip("/")}
            connection.request(verb, path, body=b"{}" if verb == "POST" else None, headers=headers)
            with connection.getresponse() as answer:
                assert answer.status == status
                answer.read()
        for site_of_page, status in (("same-site", 401), ("cross-site", 401), ("same-origin", 404)):
            headers = {"Cookie": session, "Sec-Fetch-Site": site_of_page}
            connection.request("GET", "/ui/media/uploads/none.mp4", headers=headers)
            with connection.getresponse() as answer:
                assert answer.status == status
                answer.read()
        connection.close()
        tab.page.evaluate(
            """(address) => { const form = document.createElement("form"); form.method = "post"; form.action = address;
            document.body.append(form); form.submit(); }""",
            f"{site.address}/ui/sign-out",
        )
        tab.page.wait_for_selector("text=may not call this gateway")
        tab.open(f"{site.address}/ui/dubs")
        assert tab.page.url.endswith("/ui/dubs")
        policy = tab.page.request.get(tab.page.url).headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy


def test_other_tenants_file_refused(site: Site, dub: str, browser: Any) -> None:
    """Another tenant sees neither the dub nor its files, and gets a sentence."""
    with signed_in(browser, site) as tab:
        path = f"/v1/operations/{dub.rpartition('/')[2]}"
        operation = tab.page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)
    request, result = operation["metadata"]["dub"], operation["response"]
    with signed_in(browser, site, OTHER_TOKEN) as tab:
        assert "No dubs yet" in tab.page.inner_text("main")
        for uri in (request["footageUri"], result["outputUri"], f"../{result['outputUri']}", "/etc/passwd"):
            status = tab.page.evaluate("(path) => fetch(path).then((answer) => answer.status)", f"/ui/media/{quote(uri, safe='')}")
            assert status in (400, 404), uri
        page = tab.open(f"{site.address}{dub}")
        page.wait_for_selector("#refusal:not([hidden])")
        assert "no operation" in page.inner_text("#refusal").lower()
        assert page.is_hidden("#result")


def run_ui(stages: RunningStages, data: Path, *options: str) -> subprocess.Popen[str]:
    endpoints = {f"DUBSTAGE_{name.upper()}": address for name, address in stages.endpoints().items()}
    command = [sys.executable, "-P", "-m", "gateway.cli", "ui", "--no-browser", *options]
    variables = {**os.environ, **endpoints, "DUBSTAGE_DATA_DIR": str(data)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def test_ui_command_serves_until_interrupted(stages: RunningStages, browser: Any, tmp_path: Path) -> None:
    """The command prints an address that signs in, and leaves no token behind after Ctrl-C."""
    process = run_ui(stages, tmp_path / "data", "--port", str(free_port()), "--folder", str(tmp_path / "videos"))
    try:
        line = process.stdout.readline()
        address = line.split(" at ")[1].strip()
        with tab_of(browser) as tab:
            tab.page.goto(address)
            tab.page.wait_for_url("**/ui/dubs")
            tab.page.wait_for_selector("text=No dubs yet")
            assert "#" not in tab.page.url
            assert tab.problems == []
        process.send_signal(2)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert str(tmp_path / "videos") in said
    assert not list((tmp_path / "data").glob(".ui-token*"))


def test_ui_command_names_its_faults(stages: RunningStages, tmp_path: Path) -> None:
    """A port that is taken and a folder that cannot be made are refused in one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run_ui(stages, tmp_path / "data", "--port", str(taken.getsockname()[1]))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 10
    assert "or set --port to another port" in said
    (tmp_path / "file").write_text("")
    process = run_ui(stages, tmp_path / "data", "--port", str(free_port()), "--folder", str(tmp_path / "file" / "below"))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 10
    assert "--folder: the folder" in said
