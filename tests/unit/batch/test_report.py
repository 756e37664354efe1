"""The report of a batch: what stands on its page and in its tables, and that no text of a shot can do harm there."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import pytest

from gateway.batch import report
from gateway.batch.lists import ListedShot
from gateway.batch.report import COLUMNS, Overview, duration, row_of, write_report
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.risk import reasons_of, risk_of
from gateway.batch.types import BatchFacts, ShotRecord, ShotSpec, ShotState
from services.common.errors import BackendUnavailableError, InvalidRequestError
from tests.unit.batch.rows import shot_of_row

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "report.md"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> </script></style>{{ 7 * 7 }} javascript:alert(3)"""
JPEG = b"\xff\xd8 a picture \xff\xd9"


def shot(number: int, **more: object) -> ShotSpec:
    return shot_of_row(**{"id": f"sh{number:03d}", "footage": f"/in/{number}.mov", "output": f"/out/{number}.mov", **more})


def done(number: int, **more: object) -> ShotRecord:
    return ShotRecord.model_validate(
        {
            "id": f"sh{number:03d}",
            "state": "done",
            "attempts": 1,
            "worker": "node1:77",
            "begun_at": f"2026-11-21T20:00:{number % 50:02d}.000Z",
            "ended_at": f"2026-11-21T20:00:{number % 50 + 8:02d}.000Z",
            "seconds": 8.0,
            "frames": 100,
            "frames_dubbed": 80,
            "frames_by_reason": {"DUBBED": 80, "NO_FACE": 15, "PROFILE_VIEW": 5},
            "output": f"/out/{number}.mov",
            "output_sha256": "ab" * 32,
            "method": "everyone",
            "r_opening": 0.913,
            "motion": {"silence_opening": 0.04, "width_spread": 0.53, "fastest_step": 1.4, "vowel_shift_ms": 31.6},
            "exit_code": 0,
            "has_thumbnail": True,
            **more,
        }
    )


def facts(rows: int) -> BatchFacts:
    return BatchFacts(name="night-one", manifest_sha256="c0" * 32, rows=rows, created_at="2026-11-21T19:59:00Z", engine="local")


SHOTS = [shot(0, speech="/in/0.wav", actor="ada"), shot(1), shot(2), shot(3, method="portrait")]
RECORDS = [
    done(0, warnings=("the speech is longer than the footage",)),
    done(1, r_opening=0.31, look=("the correlation is 0.310: at least 0.5 is wanted",)),
    ShotRecord(id="sh002", state=ShotState.FAILED, attempts=3, exit_code=20, error="/in/2.mov: cannot be read", seconds=3.0),
    ShotRecord(id="sh003"),
]


def written(
    folder: Path,
    shots: list[ShotSpec] = SHOTS,
    records: list[ShotRecord] = RECORDS,
    thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]] = lambda ids: dict.fromkeys(ids, JPEG),
    decisions: Mapping[str, Decision] = MappingProxyType({}),
) -> Path:
    return write_report(facts(len(shots)), listed(shots, records, decisions), thumbnails, folder)


def listed(
    shots: list[ShotSpec], records: list[ShotRecord], decisions: Mapping[str, Decision] = MappingProxyType({})
) -> list[ListedShot]:
    return [
        ListedShot(row, shot, record, decisions.get(shot.id)) for row, (shot, record) in enumerate(zip(shots, records, strict=True))
    ]


class Page(HTMLParser):
    """Elements of a page in their order, as (name, attributes), with the text of each cell of the table of shots."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.sort_values: list[list[str | None]] = []
        self._inside = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        if tag == "tr":
            self._inside = found.get("id", "").startswith("s")
            if self._inside:
                self.rows.append([])
                self.sort_values.append([])
        if tag == "td" and self._inside:
            self.rows[-1].append("")
            self.sort_values[-1].append(found.get("data-v"))

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows[-1]:
            self.rows[-1][-1] += data

    def all_of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_page_has_row_per_shot(tmp_path: Path) -> None:
    """The page has a row with all figures for each shot."""
    page = Page(written(tmp_path / "report"))
    first, marked, failed, waiting = page.rows
    for row, shown in (
        (first, ("0", "sh000", "/out/0.mov", "done", "everyone", "0.91", "80 / 100", "NO_FACE 15", "longer", "8.0 s", "12.5")),
        (marked, ("sh001", "0.31", "look", "the correlation is 0.310: at least 0.5 is wanted")),
        (failed, ("sh002", "failed", "3 attempts", "/in/2.mov: cannot be read", "exit code 20", "3.0 s")),
        (waiting, ("sh003", "waiting", "portrait", "/out/3.mov")),
    ):
        text = "\n".join(row)
        for part in shown:
            assert part in text, (part, text)
    assert [player.get("poster") for player in page.all_of("video")] == ["thumbnails/sh000.jpg", "thumbnails/sh001.jpg"]
    assert (tmp_path / "report" / "thumbnails" / "sh001.jpg").read_bytes() == JPEG
    bars = [part["style"] for part in page.all_of("i")]
    assert [style.split(";")[0] for style in bars] == ["width:80.0%", "width:15.0%", "width:5.0%"] * 2


def test_videos_have_player_and_link(tmp_path: Path) -> None:
    """Videos that are there have a player and a link relative to the report."""
    place = tmp_path / "videos" / "one: a video?.mp4"
    records = [done(0, output=str(place)), done(1, output=str(tmp_path / "report" / "b.mp4")), done(2, output="s3://bucket/c.mp4")]
    page = Page(written(tmp_path / "report", SHOTS[:3], records))
    links = ["../videos/one%3A%20a%20video%3F.mp4", "b.mp4"]
    assert [player["src"] for player in page.all_of("video")] == links
    assert all("controls" in player and player["preload"] == "none" for player in page.all_of("video"))
    assert [link["href"] for link in page.all_of("a") if link["href"].endswith(".mp4")] == links
    assert (tmp_path / "report" / unquote(links[0])).resolve() == place
    assert [picture["src"] for picture in page.all_of("img")] == ["thumbnails/sh002.jpg"], "a video elsewhere has its picture"


def test_undubbed_video_needs_review(tmp_path: Path) -> None:
    """A video without a dubbed frame has its own state and is for a person."""
    record = done(
        0, state="undubbed", frames_dubbed=0, frames_by_reason={"NO_FACE": 100}, look=("none of the 100 frames is dubbed",)
    )
    page = Page(written(tmp_path / "report", SHOTS[:1], [record]))
    assert "undubbed" in page.rows[0][3]
    assert "none of the 100 frames is dubbed" in page.rows[0][8]
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<b>0 / 1</b><span>shots done" in text
    assert ">1</b><span>shots for a person" in text
    document = json.loads((tmp_path / "report" / "shots.json").read_text(encoding="ascii"))
    assert (document["shots"][0]["state"], document["shots"][0]["needs_look"]) == ("undubbed", True)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_is_as_wide_as_the_screen(tmp_path: Path, width: int) -> None:
    long = "a_file_name_that_goes_on_and_on_without_any_blank_in_it" * 2
    records = [done(0, output=f"/out/{long}.mov", warnings=(long,), look=(f"{long}: at least 0.95 is wanted",)), *RECORDS[1:]]
    written(tmp_path / "report", records=records)
    (tmp_path / "frame.html").write_text(
        f"<body><iframe id=f src=report/index.html width={width} height=900></iframe><i id=o></i><script>f.onload=()=>"
        "{o.textContent='needs '+f.contentDocument.documentElement.scrollWidth+' px'}</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (needed,) = re.findall(r"needs (\d+) px", shown)
    assert int(needed) <= width


def test_page_top_summarises_batch(tmp_path: Path) -> None:
    """The top of the page tells what became of the batch."""
    text = written(tmp_path / "report").read_text(encoding="utf-8")
    for shown in (
        "<h1>Batch night-one</h1>",
        "<b>2 / 4</b><span>shots done",
        ">2</b><span>shots for a person",
        "<b>200</b><span>frames in finished videos, 160 of them",
        "<b>22.2</b><span>frames per second of all workers",  # 200 frames from 20:00:00 to 20:00:09
        "<b>9.0 s</b>",
        "add up to 19.0 s",
        "failed <b>1</b>",
        "waiting <b>1</b>",
        "cancelled <b>0</b>",
    ):
        assert shown in text, shown


def test_review_first_grouped_by_fault() -> None:
    """Shots that need a review stand first, equal faults together."""
    shots = [shot(number) for number in range(6)]
    records = [
        done(0, r_opening=0.4, look=("r is 0.400: at least 0.5 is wanted",)),
        done(1, r_opening=-0.1, look=("r is -0.100: at least 0.5 is wanted", "20 of 100 frames are dubbed")),
        ShotRecord(id="sh002", state=ShotState.FAILED, error="the disk is full"),
        ShotRecord(id="sh003", state=ShotState.FAILED, error="/in/3.mov: no such file"),
        ShotRecord(id="sh004", state=ShotState.FAILED, error="/in/4.mov: no such file"),
        done(5),
    ]
    overview = Overview()
    for one in listed(shots, records):
        overview.add(row_of(one, None))
    assert [(concern.failed, concern.text, [shot.id for shot in concern.shots]) for concern in overview.concerns()] == [
        (True, "FOOTAGE: no such file", ["sh003", "sh004"]),
        (True, "the disk is full", ["sh002"]),
        (False, "r is …: at least 0.5 is wanted", ["sh001", "sh000"]),
        (False, "… of … frames are dubbed", ["sh001"]),
    ]
    assert overview.summary().need_look == 5


def test_report_has_risks_and_decisions(tmp_path: Path) -> None:
    """Table, document and page have the risk with its reasons, and who decided what, when and why."""
    said = Decision(
        id="sh001", state=ReviewState.REJECTED, reviewer="Ada", note="the <chin> slips", decided_at="2026-11-21T20:30:00.000Z"
    )
    written(tmp_path / "report", decisions={"sh001": said})
    with (tmp_path / "report" / "shots.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    shots = json.loads((tmp_path / "report" / "shots.json").read_text(encoding="ascii"))["shots"]
    assert [shot["review"] for shot in shots] == ["undecided", "rejected", "undecided", None]
    assert [row["review"] for row in table] == ["undecided", "rejected", "undecided", ""]
    assert [shot["risk"] for shot in shots] == [risk_of(RECORDS[0]), risk_of(RECORDS[1]), 1.0, None]
    assert shots[1]["risk_reasons"] == list(reasons_of(RECORDS[1]))
    assert (table[1]["reviewer"], table[1]["note"], table[1]["reviewed_at"]) == ("Ada", said.note, said.decided_at)
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "the &lt;chin&gt; slips" in page
    assert "by Ada" in page


def test_csv_and_json_documented_names(tmp_path: Path) -> None:
    """CSV and JSON have the same facts under the documented names."""
    written(tmp_path / "report")
    with (tmp_path / "report" / "shots.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    document = json.loads((tmp_path / "report" / "shots.json").read_text(encoding="ascii"))
    assert document["batch"]["name"] == "night-one"
    assert document["summary"]["states"] == {
        "waiting": 1,
        "running": 0,
        "done": 2,
        "undubbed": 0,
        "failed": 1,
        "cancelled": 0,
    }
    assert document["shots"][0]["frames_by_reason"] == {"DUBBED": 80, "NO_FACE": 15, "PROFILE_VIEW": 5}
    assert [list(row) for row in (*table, *document["shots"])] == [list(COLUMNS)] * 8
    for row, facts_of in zip(table, document["shots"], strict=True):
        for column, value in facts_of.items():
            shown = {None: "", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else value
            if isinstance(shown, list):
                shown = " | ".join(shown)
            if isinstance(shown, dict):
                shown = "; ".join(f"{name}={count}" for name, count in shown.items())
            assert row[column] == str(shown), column
    documented = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented == list(COLUMNS)


def test_hostile_texts_are_only_texts(tmp_path: Path) -> None:
    place = f"/out/{HOSTILE}\u202e\x1b.mov"
    shots = [shot(0, footage=HOSTILE, output=place, speech=HOSTILE, method=HOSTILE[:80]), shot(1), shot(2)]
    records = [
        done(
            0, output=place, method=HOSTILE, warnings=(HOSTILE,), look=(HOSTILE,), worker=HOSTILE, frames_by_reason={HOSTILE: 100}
        ),
        ShotRecord(
            id="sh001", state=ShotState.FAILED, error=HOSTILE, output="javascript:alert(4)", begun_at=HOSTILE, output_sha256="a"
        ),
        ShotRecord(id="sh002", state=ShotState.FAILED, error="ends in a byte that is not UTF-8: \udcff", r_opening=float("nan")),
    ]
    page = Page(written(tmp_path / "report", shots, records))
    assert [tag for tag, _ in page.elements if tag in ("script", "img", "video", "style", "iframe", "base", "form")] == [
        "style",
        "style",
        "video",
        "script",
    ], "the page's own, and no element more"
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    assert [link["href"] for link in page.all_of("a") if ":" in link["href"]] == []
    assert HOSTILE in page.rows[0][2]
    assert "7 * 7" in page.rows[0][2]
    document = json.loads((tmp_path / "report" / "shots.json").read_text(encoding="ascii"))
    assert document["shots"][0]["output"] == place
    assert document["shots"][2]["r_opening"] is None


def test_page_is_self_contained(tmp_path: Path) -> None:
    """Only the script of the page may run and nothing is asked for elsewhere."""
    text = written(tmp_path / "report").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in Page(tmp_path / "report" / "index.html").all_of("meta") if "http-equiv" in meta]
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src 'self' file:",
        "media-src 'self' file:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]
    assert "http:" not in text
    assert "https:" not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r\n=1", "=1", "%0A", "|calc"])
def test_formula_text_is_escaped(tmp_path: Path, text: str) -> None:
    """A text that begins like a formula is no formula in the table."""
    records = [ShotRecord(id="sh000", state=ShotState.FAILED, error=text), done(1, r_opening=-0.249951, warnings=(text, "second"))]
    written(tmp_path / "report", SHOTS[:2], records)
    with (tmp_path / "report" / "shots.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["error"] == f"'{text}"
    assert second["warnings"] == f"'{text} | second"
    assert second["r_opening"] == "-0.25", "a number stays a number, of four decimal places"


def test_sortable_columns_have_values(tmp_path: Path) -> None:
    """Every column that can be sorted has a value or is empty in every row."""
    page = Page(written(tmp_path / "report"))
    kinds = [heading.get("data-kind") for heading in page.all_of("th")[-18:]]
    assert kinds == ["number", None, "text", "text", "text", *["number"] * 5, "text", *["number"] * 7]
    for values in page.sort_values:
        assert [value is not None for value in values] == [kind is not None for kind in kinds]
        for kind, value in zip(kinds, values, strict=True):
            assert kind != "number" or value == "" or float(str(value)) == float(str(value))
    assert [values[8] for values in page.sort_values] == ["", "1", "0", ""], "failed, then marked, then the others"


def test_motion_in_row_and_tables(tmp_path: Path) -> None:
    """The motion of a shot stands in its row and in the tables."""
    page = Page(written(tmp_path / "report", SHOTS[:1], [done(0)]))
    assert [cell.strip().partition("\n")[0] for cell in page.rows[0][-5:]] == ["0.04", "–", "0.53", "1.40", "32 / –"]
    (row,) = json.loads((tmp_path / "report" / "shots.json").read_text())["shots"]
    assert (row["silence_opening"], row["opening_spread"], row["width_spread"]) == (0.04, None, 0.53)


def test_the_same_batch_gives_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "one")
    written(tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert sorted(tree(tmp_path / "one")) == [
        "index.html",
        "shots.csv",
        "shots.json",
        "thumbnails/sh000.jpg",
        "thumbnails/sh001.jpg",
    ]


def test_failed_report_keeps_older_one(tmp_path: Path) -> None:
    """A later report replaces the older one and a failed one leaves it."""
    folder = tmp_path / "report"
    written(folder)
    before = tree(folder)

    def refuse(_: Sequence[str]) -> dict[str, bytes]:
        raise BackendUnavailableError("the store does not answer")

    with pytest.raises(BackendUnavailableError):
        written(folder, thumbnails=refuse)
    assert tree(folder) == before
    written(folder, thumbnails=lambda ids: dict.fromkeys(ids, b"another picture"))
    assert tree(folder)["thumbnails/sh000.jpg"] == b"another picture"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_folder_with_other_files_refused(tmp_path: Path) -> None:
    """A folder with other files is refused and stays as it is."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidRequestError, match="holds other files than a report"):
        written(tmp_path)
    assert tree(tmp_path) == {"notes.txt": b"mine"}


def test_a_picture_that_was_lost_is_left_out(tmp_path: Path) -> None:
    page = Page(written(tmp_path / "report", thumbnails=lambda _: {}))
    assert page.all_of("img") == []


def test_a_thousand_shots_are_written_in_seconds(tmp_path: Path) -> None:
    shots = [shot_of_row(id=f"sh{number}", footage=f"/in/{number}", output=f"/out/{number}") for number in range(1000)]
    records = [done(number, id=f"sh{number}", output=f"/out/{number}", has_thumbnail=number % 10 == 0) for number in range(1000)]
    begin = time.thread_time()
    page = written(tmp_path / "report", shots, records)
    assert time.thread_time() - begin < 12, "0.3 s on a free core"
    assert page.stat().st_size < 1_600_000
    assert len(Page(page).rows) == 1000


def test_long_page_shows_shots_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has a bound. The tables have every shot."""
    monkeypatch.setattr(report, "MOST_ROWS", 3)
    page = written(tmp_path / "report")
    assert "1 more shots are in" in page.read_text(encoding="utf-8")
    assert [row[0].strip() for row in Page(page).rows] == ["0", "1", "2"]
    assert len((tmp_path / "report" / "shots.csv").read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (4.25, "4.2 s"), (59.94, "59.9 s"), (60.0, "1:00"), (187.4, "3:07"), (3600.0, "1:00:00"), (43205.0, "12:00:05")],
)
def test_times_are_shown_as_people_write_them(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown
