"""Timelines: rates, timecodes, and clips that are exact to the frame or refused with a reason."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest

from gateway.studio.timeline import clips_of, exact_rate, path_of_url, timecode_frames, timecode_label, track_of
from gateway.studio.timeline_files import read_timeline
from services.common.errors import InvalidRequestError
from tests.unit.batch.painted import NTSC, clip, time

DROP = Fraction(30000, 1001)


def test_rounded_rates_stand_for_exact_ones() -> None:
    for text, rate in (("23.976", NTSC), ("23.98", NTSC), ("29.97", DROP), ("59.94", 2 * DROP), ("25", 25), ("30", 30), ("24", 24)):
        assert exact_rate(Fraction(text)) == rate
        assert exact_rate(float(rate)) == rate
    assert [exact_rate(rate) for rate in (17.3, 0.0, 24.5, -24.0)] == [None] * 4


@pytest.mark.parametrize(("rate", "drop"), [(NTSC, False), (DROP, False), (DROP, True), (2 * DROP, True), (Fraction(25), False)])
def test_timecodes_and_frames_are_inverse(rate: Fraction, drop: bool) -> None:
    nominal = round(rate)
    for minute in (0, 1, 9, 10, 11, 59, 60, 61, 600):
        for frame in range(60 * nominal * minute - 3, 60 * nominal * minute + 4):
            if frame >= 0:
                assert timecode_frames(timecode_label(frame, rate, drop=drop), rate) == frame
    # An hour of drop frame has 107,892 frames; an hour of other timecodes has 60 x 60 x the nominal rate.
    hour = 107_892 * nominal // 30 if drop else 3600 * nominal
    assert timecode_label(hour, rate, drop=drop) == f"01:00:00{';' if drop else ':'}00"


@pytest.mark.parametrize("label", ["01:01:00;00", "01:01:00;01", "01:00:00:30", "01:60:00:00", "25:00:00:00", "1:00:00:00", "x"])
def test_timecodes_that_do_not_exist(label: str) -> None:
    with pytest.raises(ValueError, match=r"timecode|does not exist"):
        timecode_frames(label, DROP)
    with pytest.raises(ValueError, match=r"which only 29\.97 and 59\.94"):
        timecode_frames("01:00:00;00", NTSC)


def clips_with(tmp_path: Path, *items: Any, start: int = 86_400) -> list[Any]:
    timeline = otio.schema.Timeline("night", global_start_time=time(start))
    timeline.tracks.append(otio.schema.Track("V1", children=list(items), kind=otio.schema.TrackKind.Video))
    otio.adapters.write_to_file(timeline, str(tmp_path / "cut.otio"), "otio_json")
    found = read_timeline(tmp_path / "cut.otio")
    assert (found.rate, found.start, found.drop) == (NTSC, start, False)
    return clips_of(found, track_of(found, None))


def test_gaps_and_transitions_move_and_widen_clips(tmp_path: Path) -> None:
    dissolve = otio.schema.Transition("", "SMPTE_Dissolve", time(3), time(5))
    gap = otio.schema.Gap(duration=time(7))
    one, two, three = clips_with(tmp_path, clip("a"), dissolve, clip("b"), gap, clip("c"))
    assert [each.record for each in (one, two, three)] == [range(10), range(10, 20), range(27, 37)]
    assert [(each.before, each.after) for each in (one, two, three)] == [(0, 5), (3, 0), (0, 0)]
    assert (one.source, one.files, one.file_names) == (100, ("file:///plates/a%20a.mov",), frozenset({"a a"}))
    assert not one.refused


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (clip("a", effects=[otio.schema.LinearTimeWarp(time_scalar=1.5)]), "its speed is 150 %"),
        (clip("a", effects=[otio.schema.LinearTimeWarp(time_scalar=-1)]), "its speed is -100 %"),
        (clip("a", effects=[otio.schema.FreezeFrame()]), "it is a freeze frame"),
        (clip("a", rate=Fraction(25)), "it has 25 frames per second, and the timeline 23.976"),
        (clip("a", start=100.5), "between two frames"),
        (clip("a", frames=9.25), "between two frames"),
        (otio.schema.Stack("nested", children=[clip("a")]), "it is a nested sequence"),
    ],
)
def test_inexact_clips_are_refused(item: Any, reason: str, tmp_path: Path) -> None:
    (found,) = clips_with(tmp_path, item)
    assert reason in found.refused


def test_clips_behind_another_rate_are_exact_or_refused(tmp_path: Path) -> None:
    """25 frames at 25 per second end between two frames of 23.976, 1001 seconds do not."""
    _, after = clips_with(tmp_path, clip("a", frames=25, rate=Fraction(25)), clip("b"))
    assert "between two frames" in after.refused
    _, after = clips_with(tmp_path, clip("a", frames=25 * 1001, rate=Fraction(25)), clip("b"))
    assert (after.refused, after.record) == ("", range(24_000, 24_010))


def test_disabled_clips_are_left_out_and_a_speed_of_1_is_none(tmp_path: Path) -> None:
    off = clip("off")
    off.enabled = False
    (found,) = clips_with(tmp_path, off, clip("a", effects=[otio.schema.LinearTimeWarp(time_scalar=1.0)]))
    assert (found.number, found.record, found.refused) == (2, range(10, 20), "")


def test_tracks_are_named(tmp_path: Path) -> None:
    timeline = otio.schema.Timeline("night")
    for name in ("V1", "V2"):
        timeline.tracks.append(otio.schema.Track(name, children=[clip(name)], kind=otio.schema.TrackKind.Video))
    otio.adapters.write_to_file(timeline, str(tmp_path / "cut.otio"), "otio_json")
    found = read_timeline(tmp_path / "cut.otio")
    with pytest.raises(InvalidRequestError, match="give track with one of V1, V2"):
        track_of(found, None)
    assert [track_of(found, name).name for name in ("V2", "1")] == ["V2", "V1"]
    with pytest.raises(InvalidRequestError, match="has the video tracks V1, V2"):
        track_of(found, "V3")


def test_urls_of_media() -> None:
    assert path_of_url("file://localhost/a%20b/c.mov") == "/a b/c.mov"
    assert path_of_url("C:\\plates\\c.mov") == "C:/plates/c.mov"
    assert path_of_url("/plates/c.mov") == "/plates/c.mov"
