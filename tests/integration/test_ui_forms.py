"""The forms of the pages in a real Chromium: enrolment, consent record, scene and batch, from uploads to what the gateway made."""

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import soundfile

from dubstage.client import batch
from dubstage.client import gateway as gateway_client
from dubstage.gateway.v1 import dub_pb2
from tests.contract.ports import free_port
from tests.integration.client_calls import enrolment
from tests.integration.servers import StartGateway
from tests.integration.test_ui import (  # noqa: F401  # browser and site are fixtures
    TOKEN,
    WAIT_MS,
    Site,
    browser,
    page_of,
    pytestmark,
    serious,
    shown,
    signed_in,
    site,
    tab_of,
    until,
)
from tests.integration.videos import SPEECH, Media, write_short_clip
from tests.written_pictures import FAST, write_pictures

PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}


@pytest.fixture(scope="module")
def second(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second video of the person of the site's footage."""
    path = tmp_path_factory.mktemp("second") / "second take.mp4"
    write_short_clip(carphone, path, 29, end=85)
    return path


def fill_record(page: Any, **fields: str) -> None:
    """Fill in the consent record of a form."""
    page.check("[name=consent-kind][value=form]")
    values = {"subject": "Ada <b>", "granted-by": "Ada", "scope": "tests", "date": "2026-01-31", "reference": "box 9", **fields}
    for name, value in values.items():
        page.fill(f"#consent-{name}", value)


def problem_at(page: Any, control: str) -> str:
    """Return the sentence at a control that has the focus, once there is one."""
    page.wait_for_selector(f"#problem-{control}")
    assert page.evaluate("document.activeElement.id") == control
    assert page.get_attribute(f"#{control}", "aria-invalid") == "true"
    assert f"problem-{control}" in page.get_attribute(f"#{control}", "aria-describedby")
    return str(page.inner_text(f"#problem-{control}"))


def test_a_person_is_enrolled(site: Site, browser: Any, second: Path) -> None:  # noqa: F811
    """Files, a filled-in record and one button enrol a person, whose card follows; each mistake is shown at its field."""
    with page_of(browser, site, "/ui/people") as page:
        page.focus("#enrol summary")
        page.keyboard.press("Enter")
        page.click("#enrol-begin")
        assert problem_at(page, "enrol-name") == "Give the name of the person."
        page.fill("#enrol-name", "李雷")
        page.click("#enrol-begin")
        assert "letters a to z" in problem_at(page, "enrol-name")
        page.fill("#enrol-name", "Ada Lövelace")
        assert page.inner_text("#enrol-id") == "Id: ada-lovelace"
        page.click("#enrol-begin")
        assert "Choose footage" in problem_at(page, "enrol-footage-file")
        page.set_input_files("#enrol-footage-file", [site.footage, second])
        until(page, "document.querySelectorAll('#enrol-footage-list .bar[hidden]').length === 2")
        fill_record(page, reference="")
        page.wait_for_selector("text=names the footage by its digest")
        page.click("#enrol-begin")
        assert "Original kept at" in problem_at(page, "consent-reference")
        page.fill("#consent-reference", "box 9")
        assert page.locator("small.bad").count() == 0
        assert serious(page) == []
        shown(page, "enrol")
        page.click("#enrol-form > details summary")
        page.check("#enrol-quick")
        page.click("#enrol-begin")
        page.wait_for_selector("#enrolments section:has-text('Enrolling Ada')")
        assert serious(page) == []
        card = page.locator("section.card", has=page.locator("#name-ada-lovelace"))
        card.wait_for(timeout=3 * WAIT_MS)
        assert "Consent on record" in card.inner_text()
        assert "Ada <b>" in card.inner_text()
        assert page.locator("#enrolments section").count() == 0
        assert page.locator("#enrol-footage-list li").count() == 0
        shown(page, "enrolled")
    with site.gateway.connect(token=TOKEN) as connection:
        actor = gateway_client.get_actor(connection, "ada-lovelace")
        assert len(actor.consent.footage_sha256) == 2
        assert actor.num_enrolled_frames > 29


def test_refusals_stand_at_their_fields(site: Site, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    """What the gateway refuses is shown at the field that it names, in the user's names of the files."""
    broken = tmp_path / "Take 4.mp4"
    broken.write_bytes(b"no video " * 100)
    with signed_in(browser, site, **PHONE) as tab:
        page = tab.open(f"{site.address}/ui/people")
        page.click("#enrol summary")
        page.fill("#enrol-name", "Broken")
        page.set_input_files("#enrol-footage-file", broken)
        until(page, "document.querySelectorAll('#enrol-footage-list .bar[hidden]').length === 1")
        page.click("#enrol-begin")
        assert "Take 4.mp4" in problem_at(page, "enrol-footage-file")
        page.get_by_role("button", name="Remove Take 4.mp4").click()
        page.set_input_files("#enrol-footage-file", site.footage)
        until(page, "document.querySelectorAll('#enrol-footage-list .bar[hidden]').length === 1")
        fill_record(page, until="2026-02-28")
        page.wait_for_selector("text=names the footage by its digest")
        page.click("#enrol-begin")
        assert "ended" in problem_at(page, "consent-until")
        page.fill("#consent-until", "")
        page.fill("#consent-languages", "de, German words")
        page.click("#enrol-begin")
        assert problem_at(page, "consent-languages").startswith("'German words' is no language tag")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        shown(page, "enrol-390-dark")


def test_one_enrolment_after_lost_answer(site: Site, browser: Any) -> None:  # noqa: F811
    """After a lost answer, the same request is sent again. During the enrolment, the form is free for the next person."""
    asked: list[str] = []

    def lose_first(route: Any) -> None:
        if route.request.method != "POST":
            route.fallback()
            return
        asked.append(route.request.post_data_json["requestId"])
        if len(asked) > 1:
            route.fallback()
            return
        route.fetch()
        route.abort()

    with signed_in(browser, site) as tab:
        page = tab.open(f"{site.address}/ui/people")
        page.route("**/v1/actors", lose_first)
        page.click("#enrol summary")
        page.fill("#enrol-name", "Lost answer")
        page.set_input_files("#enrol-footage-file", site.footage)
        until(page, "document.querySelectorAll('#enrol-footage-list .bar[hidden]').length === 1")
        page.click("#enrol-begin")
        page.wait_for_selector("#refusal:has-text('cannot be reached')")
        page.click("#enrol-begin")
        page.wait_for_selector("#enrolments section:has-text('Enrolling Lost answer')")
        assert asked[0] == asked[1]
        assert page.evaluate("document.activeElement.ariaLabel") == "Enrolling Lost answer"
        page.click("#enrol summary")
        assert page.input_value("#enrol-name") == ""
        assert page.locator("#enrol-footage-list li").count() == 0
        page.wait_for_selector("#enrol-begin:enabled")
        page.fill("#enrol-name", "Next person")
        page.click("#enrolments button")
        page.click("dialog .danger")
        page.wait_for_selector("#refusal:has-text('The enrolment is cancelled')")
        assert page.input_value("#enrol-name") == "Next person"


def test_incomplete_records_are_refused(site: Site, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    """A record that names no footage is not saved, and a file that is no record begins no work."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with page_of(browser, site, "/ui/people") as page:
        page.click("#enrol summary")
        page.check("[name=consent-kind][value=form]")
        assert page.input_value("#consent-date") == "", "the user states the date"
        fill_record(page)
        page.click("#consent-save")
        assert "choose the footage" in problem_at(page, "consent-subject")
        page.set_input_files("#enrol-footage-file", site.footage)
        page.wait_for_selector("text=names the footage by its digest")
        with page.expect_download():
            page.click("#consent-save")
        page.check("[name=consent-kind][value=file]")
        page.set_input_files("#consent-file", broken)
        page.fill("#enrol-name", "Ada")
        page.click("#enrol-begin")
        assert "broken.json is no consent record" in problem_at(page, "consent-file")


@pytest.mark.long
def test_an_enrolment_is_cancelled(site: Site, browser: Any) -> None:  # noqa: F811
    """An enrolment is shown after a reload, and is cancelled on the page."""
    with page_of(browser, site, "/ui/people") as page:
        page.click("#enrol summary")
        page.fill("#enrol-name", "Not enrolled")
        page.set_input_files("#enrol-footage-file", site.footage)
        until(page, "document.querySelectorAll('#enrol-footage-list .bar[hidden]').length === 1")
        page.click("#enrol-begin")
        page.wait_for_selector("#enrolments section")
        page.reload()
        page.click("#enrolments button")
        page.click("dialog .danger")
        page.wait_for_selector("#refusal:has-text('The enrolment is cancelled')")
        assert page.locator("#name-not-enrolled").count() == 0


def test_a_plan_names_the_forms_fields(site: Site, browser: Any, takes: list[Path], tmp_path: Path) -> None:  # noqa: F811
    """A wrong file is marked in its card, with the file's own name; a wrong option and a wrong line by the words of the form."""
    picture = tmp_path / "line.jpg"
    picture.write_bytes(cv2.imencode(".jpg", np.zeros((90, 120, 3), np.uint8))[1].tobytes())
    with signed_in(browser, site, **PHONE) as tab:
        page = tab.open(f"{site.address}/ui/new")
        page.set_input_files("#footage-file", site.footage)
        page.set_input_files("#speech-file", picture)
        page.wait_for_selector("#problem-speech-file")
        assert page.inner_text("#problem-speech-file") == page.inner_text("#plan .bad")
        assert page.inner_text("#plan .bad").startswith("line.jpg has no sound track"), "the name stays as it is"
        assert page.is_hidden("#refusal")
        assert page.get_attribute("#speech-file", "aria-invalid") == "true"
        assert serious(page) == []
        shown(page, "new-wrong-390-dark")
        page.set_input_files("#speech-file", site.speech)
        page.click("#options summary")
        page.fill("#language", "German words")
        page.press("#language", "Tab")
        page.wait_for_selector("#problem-language")
        assert page.locator("small.bad").count() == 1, "the right file has no mark"
        assert page.inner_text("#plan .bad").startswith("Language of the speech: 'German words' is no language tag")
        page.fill("#language", "de")
        page.press("#language", "Tab")
        page.wait_for_selector("#create:enabled")
        assert page.locator("small.bad").count() == 0
        page.check("#scene")
        page.set_input_files("#lines-file", takes[0])
        page.wait_for_selector("#create:enabled")
        page.get_by_label("Begin line 1", exact=True).fill("9")
        page.keyboard.press("Tab")
        page.wait_for_selector("#lines small.bad")
        assert page.inner_text("#plan .bad").startswith("Begin line 1: 9.000 s is after the end of the video")
        assert serious(page) == []


def test_a_filled_in_record_is_used(
    site: Site,  # noqa: F811
    browser: Any,  # noqa: F811
    start_gateway: StartGateway,
    tmp_path: Path,
) -> None:
    """A gateway that requires consent takes the record of the form, which names the footage; the saved file is a record."""
    port = free_port()
    start_gateway(http_port=port, require_consent="true")
    with tab_of(browser) as tab:
        page = tab.open(f"http://127.0.0.1:{port}/ui/new")
        page.set_input_files("#footage-file", site.footage)
        page.set_input_files("#speech-file", site.speech)
        fill_record(page, projects="harbour, night film", scope="")
        page.wait_for_selector("#plan .bad:has-text('Covers (consent record)')")
        page.fill("#consent-scope", "tests")
        page.wait_for_selector("#plan .bad:has-text('project')")
        page.click("#options summary")
        page.fill("#project", "harbour")
        page.wait_for_selector("#create:enabled")
        assert "A form cannot sign" in page.inner_text("#consent")
        assert serious(page) == []
        shown(page, "consent")
        with page.expect_download() as download:
            page.click("#consent-save")
        record = json.loads(Path(download.value.path()).read_text())
        assert (record["subject"], record["projects"]) == ("Ada <b>", ["harbour", "night film"])
        (tmp_path / "consent.json").write_text(json.dumps(record))
        page.set_input_files("#consent-file", tmp_path / "consent.json")
        page.wait_for_selector("text=Record of Ada <b>, given by Ada")
        page.wait_for_selector("#create:enabled")


@pytest.fixture(scope="module")
def two_people(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage with two faces side by side: the person at one time, and mirrored at another time."""
    with av.open(str(carphone)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    height, width, _ = pictures[0].shape
    pairs = [np.hstack([left, right[:, ::-1]]) for left, right in zip(pictures[-34:], pictures[-74:-40], strict=True)]
    larger = (av.VideoFrame.from_ndarray(pair, format="rgb24").reformat(4 * width, 2 * height) for pair in pairs)
    path = tmp_path_factory.mktemp("scene") / "two people.mp4"
    write_pictures(path, larger, "libx264", **FAST)
    return path


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short sounds of speech, 0.6 s and 0.5 s long."""
    samples, rate_hz = soundfile.read(SPEECH, dtype="int16")
    folder = tmp_path_factory.mktemp("takes")
    for name, begin_s, end_s in (("first", 0.0, 0.6), ("second", 0.5, 1.0)):
        soundfile.write(folder / f"{name}.wav", samples[int(begin_s * rate_hz) : int(end_s * rate_hz)], rate_hz)
    return [folder / "first.wav", folder / "second.wav"]


def test_enrolled_people_are_named(site: Site, browser: Any, takes: list[Path], media: Media, carphone: Path) -> None:  # noqa: F811
    """The record of a dub with an enrolled person names the person alone. A line gets no person whom the user has not chosen."""
    write_short_clip(carphone, media.root / "ui_named.mp4", 26)
    with site.gateway.connect(token=TOKEN) as connection:
        gateway_client.enrol(connection, **enrolment("named", consent=False, footage="ui_named.mp4")).wait(timeout_s=300)
    with page_of(browser, site, "/ui/new") as page:
        page.set_input_files("#footage-file", site.footage)
        page.set_input_files("#speech-file", site.speech)
        page.click("#options summary")
        page.select_option("#actor", "actors/named")
        fill_record(page)
        page.wait_for_selector("text=The record names the enrolled person.")
        with page.expect_request(lambda asked: asked.url.endswith("dubs:estimate") and "box 9" in asked.post_data) as asked:
            page.fill("#project", "harbour")
            page.press("#project", "Tab")
        record = asked.value.post_data_json["dub"]["consent"]
        assert (record["actor"], record.get("footage_sha256")) == ("named", None)
        page.reload()
        page.check("#scene")
        assert page.is_visible("text=every line without a record of its own")
        page.set_input_files("#lines-file", takes[0])
        page.wait_for_selector("#lines tr")
        assert page.get_by_label("Who speaks line 1").input_value() == "rule:FACE_RULE_SPEAKER"


def test_lines_of_earlier_dubs_stay(site: Site, browser: Any) -> None:  # noqa: F811
    """The form of an earlier dub keeps what it does not show of a line, until the user changes it."""
    line = {"start_timecode": "00:00:00:03", "speech_uri": "speech.wav", "face_rule": dub_pb2.FACE_RULE_LARGEST, "language": "de"}
    with site.gateway.connect(token=TOKEN) as connection:
        made = gateway_client.dub(connection, footage="footage.mp4", output="ui_lines.mp4", personalize=False, lines=[line])
        made.cancel()
    # The gateway sends the files of dubs that have succeeded alone, so the players have none.
    with signed_in(browser, site) as tab:
        page = tab.page
        with page.expect_request("**/dubs:estimate") as asked:
            page.goto(f"{site.address}/ui/new?from={made.name.rpartition('/')[2]}")
        (kept,) = asked.value.post_data_json["dub"]["lines"]
        assert (kept["startTimecode"], kept["faceRule"], kept["language"]) == ("00:00:00:03", "FACE_RULE_LARGEST", "de")
        assert page.is_visible("#consent-again"), "the record of the earlier dub is not taken over"
        page.wait_for_selector("#create:enabled")
        page.get_by_label("Who speaks line 1").select_option("rule:FACE_RULE_SPEAKER")
        with page.expect_request(lambda asked: asked.url.endswith("dubs:estimate") and "0.125s" in asked.post_data) as asked:
            page.get_by_label("Begin line 1", exact=True).fill("0.125")
            page.keyboard.press("Tab")
        (changed,) = asked.value.post_data_json["dub"]["lines"]
        assert (changed["startTime"], changed["faceRule"], changed["language"]) == ("0.125s", "FACE_RULE_SPEAKER", "de")
        assert not {"startTimecode", "expressiveness"} & set(changed)
        page.get_by_label("Language line 1").fill("pt-BR")
        with page.expect_request(lambda asked: asked.url.endswith("dubs:estimate") and "1.2" in asked.post_data) as asked:
            page.get_by_label("Expressiveness line 1").fill("1.2")
            page.keyboard.press("Tab")
        (other,) = asked.value.post_data_json["dub"]["lines"]
        assert (other["language"], other["expressiveness"]) == ("pt-BR", 1.2)
        page.wait_for_selector("#create:enabled")


@pytest.mark.long
def test_a_scene_with_two_lines(site: Site, browser: Any, two_people: Path, takes: list[Path]) -> None:  # noqa: F811
    """Two sounds become lines of two faces; a line is moved by hand and by number; the dub and its form again have both lines."""
    begin = "#lines tr:nth-child(2) td:first-child input"
    with page_of(browser, site, "/ui/new") as page:
        page.set_input_files("#footage-file", two_people)
        page.check("#scene")
        page.wait_for_selector("#scene-lanes img >> nth=1")
        page.set_input_files("#lines-file", takes)
        page.wait_for_selector("#lines tr:nth-child(2)")
        until(page, "document.querySelector('#lines tr:nth-child(2) td:nth-child(4)').textContent === '1.10 s'")
        assert page.input_value(begin) == "0.6", "the second line begins where the first one ends"
        page.get_by_label("Who speaks line 1").select_option("face:0")
        page.get_by_label("Who speaks line 2").select_option("face:1")
        page.click("#options summary")
        page.check("#quick")
        page.fill("#label", "AI dubbed")
        page.set_input_files("#mix-file", takes[1])
        page.wait_for_selector("#create:enabled")
        line = page.locator("#scene-lanes .track:nth-child(2) .line")
        line.scroll_into_view_if_needed()
        box = line.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 5)
        page.mouse.down()
        page.mouse.move(box["x"] - 80, box["y"] + 5, steps=4)
        page.mouse.up()
        assert 0.3 < float(page.input_value(begin)) < 0.6
        page.fill(begin, "0.4")
        page.press(begin, "Tab")
        assert page.evaluate("document.activeElement.textContent") == "from the player"
        assert page.is_hidden("#preview")
        page.wait_for_selector("#create:enabled")
        assert serious(page) == []
        shown(page, "scene")
        page.click("#create")
        page.wait_for_url("**/ui/dubs/*")
        page.wait_for_selector("#result:not([hidden])")
        assert "with 2 lines" in page.inner_text("#about")
        assert "0 s: first.wav; 0.4 s: second.wav" in page.inner_text("#options")
        assert page.inner_text("#facts tr:has-text('Face') td").startswith("number 0")
        shown(page, "scene-dub")
        page.click("#again")
        page.wait_for_selector("#create:enabled")
        assert page.is_checked("#scene")
        assert page.get_by_label("Who speaks line 2").input_value() == "face:1"
        assert (page.input_value(begin), page.input_value("#label")) == ("0.4", "AI dubbed")
        page.get_by_role("button", name="Remove line 1").click()
        page.wait_for_selector("#create:enabled")
        assert page.locator("#scene-lanes .line").count() == 1


def test_a_scene_on_a_phone(site: Site, browser: Any, takes: list[Path]) -> None:  # noqa: F811
    """The table of lines fits 390 px, and a line may be another person's than the footage shows."""
    with page_of(browser, site, "/ui/new", **PHONE) as page:
        page.check("#scene")
        page.set_input_files("#lines-file", takes)
        until(page, "document.querySelectorAll('#lines .bar[hidden]').length === 2")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        shown(page, "scene-390-dark")


@pytest.mark.long
def test_a_batch_from_files(site: Site, browser: Any, takes: list[Path], second: Path) -> None:  # noqa: F811
    """One footage with two sounds becomes two shots; a mistake is shown before anything begins, and the batch's page follows."""
    with page_of(browser, site, "/ui/batches") as page:
        page.focus("#new-batch summary")
        page.keyboard.press("Enter")
        page.click("#batch-begin")
        assert "name" in problem_at(page, "batch-name")
        page.fill("#batch-name", "Harbour night")
        assert page.inner_text("#batch-id") == "Id: harbour-night"
        page.set_input_files("#batch-footage-file", second)
        page.set_input_files("#batch-speech-file", takes)
        until(page, "document.querySelectorAll('#batch-form .files .bar[hidden]').length === 3")
        assert page.locator("#batch-pairs tr td:first-child").all_inner_texts() == ["first", "second"]
        page.check("#batch-quick")
        page.fill("#batch-language", "German words")
        page.click("#batch-begin")
        page.wait_for_selector("#batch-mistakes li:has-text('Shot second, Language of the speech')")
        assert serious(page) == []
        shown(page, "batch-new")
        page.fill("#batch-language", "de")
        page.get_by_label("Speech of second").select_option("first.wav")
        page.click("#batch-begin")
        page.wait_for_url("**/ui/batches/harbour-night")
        page.wait_for_selector(".shots h3 a")
        assert page.locator(".shots h3 a").count() == 2
    with site.gateway.connect(token=TOKEN) as connection:
        *_, ended = batch.watch(connection, "harbour-night")
        assert ended.progress.num_done == 2
        outputs = [shot.output_uri for shot in batch.list_shots(connection, "harbour-night")]
        assert sorted(outputs) == ["harbour-night/first.mp4", "harbour-night/second.mp4"]


def test_speech_pairs_by_name(site: Site, browser: Any, takes: list[Path], tmp_path: Path) -> None:  # noqa: F811
    """Files of one name belong together, whatever their places. Speech without a shot is named."""
    files = {name: tmp_path / name for name in ("a.mp4", "b.mp4", "b.wav", "c.wav", "d.wav")}
    for path in files.values():
        path.write_bytes((site.footage if path.suffix == ".mp4" else takes[0]).read_bytes())
    with page_of(browser, site, "/ui/batches") as page:
        page.click("#new-batch summary")
        page.set_input_files("#batch-footage-file", [files["a.mp4"], files["b.mp4"]])
        speech = page.locator("#batch-pairs option:checked")
        page.set_input_files("#batch-speech-file", files["b.wav"])
        page.wait_for_selector("#batch-pairs option:checked:has-text('b.wav')", state="attached")
        assert speech.all_inner_texts() == ["own sound", "b.wav"]
        page.focus("#batch-pairs select")
        page.set_input_files("#batch-speech-file", [files["c.wav"], files["d.wav"]])
        page.wait_for_selector("#batch-unused:has-text('No shot has the speech d.wav.')")
        assert speech.all_inner_texts() == ["c.wav", "b.wav"]
        assert page.evaluate("document.activeElement.ariaLabel") == "Speech of a"
        until(page, "document.querySelectorAll('#batch-form .files .bar[hidden]').length === 5")


def test_a_batch_from_a_manifest(site: Site, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    """The mistakes of a manifest are shown by line; a right manifest begins a batch."""
    manifest = tmp_path / "night.jsonl"
    rows = [
        {"id": "a", "footage": "not_filmed_yet.mp4", "output": "manifest/a.mp4"},
        {"id": "b", "footage": "footage.mp4", "output": "manifest/b.mp4"},
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    with page_of(browser, site, "/ui/batches", **PHONE) as page:
        page.click("#new-batch summary")
        page.fill("#batch-name", "manifest")
        page.check("[name=batch-source][value=manifest]")
        page.click("#batch-begin")
        assert "Choose a manifest" in problem_at(page, "batch-manifest")
        page.set_input_files("#batch-manifest", manifest)
        page.click("#batch-begin")
        page.wait_for_selector("#batch-mistakes li:has-text('Line 1, footage')")
        assert page.locator("#batch-mistakes li").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert serious(page) == []
        shown(page, "batch-390-dark")
        manifest.write_text(json.dumps(rows[1]))
        page.set_input_files("#batch-manifest", manifest)
        page.click("#batch-begin")
        page.wait_for_url("**/ui/batches/manifest")
    with site.gateway.connect(token=TOKEN) as connection:
        batch.cancel(connection, "manifest")
