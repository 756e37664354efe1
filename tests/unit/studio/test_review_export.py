"""Decisions as CSV, EDL and OTIO: frame-exact, and safe with any text."""

from __future__ import annotations

import csv
import io
import re
import sys
from fractions import Fraction
from typing import Any

import opentimelineio as otio
import pytest

from gateway.batch.reviews import Decision, Region, ReviewState
from gateway.batch.types import ShotRecord, ShotState
from gateway.studio.review_export import COLUMNS, ReviewedShot, decisions_csv, timeline_text
from services.common.errors import InvalidRequestError

RATES = [Fraction(24), Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001)]
NOTE = "chin\nslips <b>\nM2   V     C"


def reviewed(name: str, rate: Fraction | None, frame: int | None = 33, frames: int = 100, **more: Any) -> ReviewedShot:
    record = ShotRecord(id=name, state=ShotState.DONE, frames=frames, output=f"/out/{name}.mov", output_sha256="ab" * 32)
    said: dict[str, Any] = {"state": ReviewState.REJECTED, "note": NOTE, "reviewer": "Ada", **more}
    return ReviewedShot(record, Decision(id=name, frame=frame, decided_at="2026-01-02T03:04:05.678Z", **said), rate)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("kind", ["edl", "otio"])
def test_markers_are_exact_to_the_frame(rate: Fraction, kind: Any) -> None:
    """Every frame of a long shot keeps its number, and the second shot begins where the first one ends."""
    for frame in (0, 1, 23, 24, 1799, 1800, 17_982, 44_999):
        text = timeline_text("night", [reviewed("a", rate, frame, 45_000), reviewed("b", rate, None, 10)], kind)
        if kind == "edl":
            assert edl_of(text, rate) == (["a", "b"], [frame, 45_000], [45_000, 10], 45_000)
            continue
        timeline = otio.adapters.read_from_string(text, "otio_json")
        clips = list(timeline.find_clips())
        assert [clip.name for clip in clips] == ["a", "b"]
        assert [clip.markers[0].marked_range.start_time.to_frames() for clip in clips] == [frame, 0]
        assert [clip.duration().to_frames() for clip in clips] == [45_000, 10]
        assert clips[1].range_in_parent().start_time.to_frames() == 45_000


def edl_of(text: str, rate: Fraction) -> tuple[list[str], list[int], list[int], int]:
    """Names of the clips, frames of the timeline with markers, lengths, and the first frame of the last clip on the timeline."""

    def frames(code: str) -> int:
        return otio.opentime.from_timecode(code, float(rate)).to_frames()

    events = re.findall(r"^\d{3}\s+(\S+)\s+V\s+C\s+(\S+) (\S+) (\S+) (\S+)$", text, re.MULTILINE)
    names = re.findall(r"^\* FROM CLIP NAME: +(\S+)$", text, re.MULTILINE)
    marked = [frames(code) for code in re.findall(r"^\* LOC: (\S+)", text, re.MULTILINE)]
    return names, marked, [frames(end) - frames(begin) for _, begin, end, _, _ in events], frames(events[-1][3])


def test_notes_cannot_write_lines_of_an_edl() -> None:
    lines = timeline_text("night", [reviewed("a", RATES[1])], "edl").splitlines()
    assert not [line for line in lines if line.startswith("M2")]
    assert [line for line in lines if line.startswith("* LOC")] == [
        "* LOC: 00:00:01:08 RED     rejected by Ada: chin slips <b> M2 V C"
    ]


def test_otio_has_all_of_a_decision() -> None:
    region = Region(x=0.25, y=0.5, width=0.5, height=0.25)
    timeline = otio.adapters.read_from_string(timeline_text("night", [reviewed("a", RATES[2], region=region)], "otio"), "otio_json")
    (clip,) = timeline.find_clips()
    said = clip.markers[0].metadata["dubstage"]
    assert (said["note"], said["reviewer"], dict(said["region"]), said["frame_rate"]) == (
        NOTE,
        "Ada",
        region.model_dump(),
        "24000/1001",
    )
    assert clip.markers[0].name == "rejected by Ada: chin slips <b> M2 V C [x 0.25 y 0.5 width 0.5 height 0.25]"


def test_an_edl_has_one_rate_and_few_events() -> None:
    with pytest.raises(InvalidRequestError, match=r"shot a has 24, shot b 23\.976 frames per second: choose otio"):
        timeline_text("night", [reviewed("a", RATES[0]), reviewed("b", RATES[2])], "edl")
    with pytest.raises(InvalidRequestError, match="at most 999 events, and 1000 shots"):
        timeline_text("night", [reviewed(f"s{number}", RATES[0]) for number in range(1000)], "edl")
    with pytest.raises(InvalidRequestError, match="has timecodes, and there are none at 100 frames per second: choose otio"):
        timeline_text("night", [reviewed("a", Fraction(100))], "edl")
    assert timeline_text("night", [reviewed("a", RATES[0]), reviewed("b", RATES[2])], "otio")
    with pytest.raises(InvalidRequestError, match="no shot of batch night has a video and a decision"):
        timeline_text("night", [reviewed("a", None)], "otio")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(InvalidRequestError, match=r"need the package opentimelineio.*dubstage-suite\[timelines\]"):
        timeline_text("night", [reviewed("a", RATES[0])], "otio")


def test_csv_has_all_decisions_and_no_formulas() -> None:
    first = reviewed("a", RATES[0], note="=1+1").decision
    last = reviewed("a", RATES[0], number=2, state=ReviewState.APPROVED, region=Region(x=0, y=0, width=1, height=0.5)).decision
    rows = list(csv.DictReader(io.StringIO(decisions_csv([first, last], {"a": last}))))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["state"], row["present"], row["height"]) for row in rows] == [
        ("rejected", "false", ""),
        ("approved", "true", "0.5"),
    ]
    assert (rows[0]["note"], rows[1]["note"]) == ("'=1+1", NOTE)
