"""EDLs of CMX 3600: what programs write is read to the frame, and what is written is read back."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import opentimelineio as otio
import pytest

from gateway.studio.edl import edl_text
from gateway.studio.timeline import Timeline, clips_of, track_of
from gateway.studio.timeline_files import read_timeline
from services.common.errors import InvalidRequestError
from tests.unit.batch.painted import clip, time

DROP, NTSC = Fraction(30000, 1001), Fraction(24000, 1001)


def read(tmp_path: Path, text: str, rate: Fraction = DROP) -> Timeline:
    (tmp_path / "cut.edl").write_text(text)
    return read_timeline(tmp_path / "cut.edl", rate)


def event(number: int, kind: str, source: str, record: str, reel: str = "A001") -> str:
    return f"{number:03d}  {reel:<8} V     {kind:<8} {source} {record}\n"


def test_fcm_makes_timecodes_with_colons_drop_frame(tmp_path: Path) -> None:
    """Some programs write drop frame in the line FCM alone. A minute later, two numbers are left out."""
    text = "FCM: DROP FRAME\n" + event(1, "C", "01:00:00:00 01:00:02:00", "10:01:00:02 10:01:02:02")
    found = read(tmp_path, text)
    (clip,) = clips_of(found, track_of(found, None))
    assert (found.start, found.drop, clip.source, clip.drop) == (10 * 107_892 + 1800, True, 107_892, True)
    assert found.label(0) == "10:01:00;02"
    plain = read(tmp_path, text.replace("DROP", "NON-DROP"))
    (clip,) = clips_of(plain, track_of(plain, None))
    assert (plain.start, plain.drop, clip.source) == (10 * 108_000 + 1802, False, 108_000)


def test_list_in_utf16_read(tmp_path: Path) -> None:
    text = "TITLE: Größe\n" + event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00:00 10:00:02:00")
    (tmp_path / "cut.edl").write_text(text, encoding="utf-16")
    assert read_timeline(tmp_path / "cut.edl", Fraction(25)).content.name == "Größe"


def test_sources_and_record_may_differ_in_drop_frame(tmp_path: Path) -> None:
    text = "FCM: DROP FRAME\n" + event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00;00 10:00:02;00")
    found = read(tmp_path, text)
    (clip,) = clips_of(found, track_of(found, None))
    assert (clip.source, clip.drop, found.drop) == (108_000, False, True)
    assert "01:00:00:00 01:00:02:00 10:00:00;00 10:00:02;00" in edl_text(found, track_of(found, None))


def test_dissolves_black_and_gaps(tmp_path: Path) -> None:
    text = (
        event(1, "C", "00:00:00:00 00:00:00:00", "01:00:00:00 01:00:00:00", "BL")
        + event(1, "D    006", "01:00:00:00 01:00:02:00", "01:00:00:00 01:00:02:00")
        + event(2, "C", "01:00:02:00 01:00:02:00", "01:00:02:00 01:00:02:00")
        + event(2, "W001 012", "02:00:00:00 02:00:01:00", "01:00:02:00 01:00:03:00", "A002")
        + event(3, "C", "03:00:00:00 03:00:01:00", "01:00:04:00 01:00:05:00", "A003")
        + event(4, "C", "00:00:00:00 00:00:01:00", "01:00:05:00 01:00:06:00", "BL")
    )
    found = read(tmp_path, text, NTSC)
    clips = clips_of(found, track_of(found, None))
    assert [(clip.record.start, len(clip.record), clip.before, clip.after) for clip in clips] == [
        (0, 48, 0, 12),
        (48, 24, 0, 0),
        (96, 24, 0, 0),
    ]
    written = edl_text(found, track_of(found, None))
    words = " ".join(written.split())
    assert "001 BL V C 00:00:00:00 00:00:00:00 01:00:00:00 01:00:00:00 001 A001 V D 006 01:00:00:00" in words
    assert "002 A002 V W001 012 02:00:00:00 02:00:01:00 01:00:02:00 01:00:03:00" in words
    again = read(tmp_path, written, NTSC)
    assert clips_of(again, track_of(again, None)) == clips


def test_dissolves_of_changed_speed_round_trip(tmp_path: Path) -> None:
    """200 % before a dissolve: 50 frames of the timeline are 100 frames of media."""
    m2 = "M2   {:<8} {:05.1f}                {}\n"
    text = (
        event(1, "C", "01:00:00:00 01:00:04:00", "10:00:00:00 10:00:02:00")
        + m2.format("A001", 50, "01:00:00:00")
        + event(2, "C", "01:00:04:00 01:00:04:00", "10:00:02:00 10:00:02:00")
        + event(2, "D    012", "02:00:00:00 02:00:01:00", "10:00:02:00 10:00:04:00", "A002")
        + m2.format("A002", 12.5, "02:00:00:00")
    )
    found = read(tmp_path, text, Fraction(25))
    written = edl_text(found, track_of(found, None)).splitlines()
    assert [line.split() for line in text.splitlines()] == [line.split() for line in written if line[0] in "0M"]


@pytest.mark.parametrize(
    ("speed", "shown", "left"),
    [(2, "00:00:41:04 00:00:44:16", "00:00:44:16"), (-1, "00:00:41:20 00:00:43:14", "00:00:41:20")],
)
def test_dissolves_before_cuts_follow_the_speed(speed: int, shown: str, left: str, tmp_path: Path) -> None:
    """A clip of 40 frames from 1000 has 6 more before its cut in, and leaves its last 4 to the next event."""
    dissolves = [otio.schema.Transition("", "SMPTE_Dissolve", time(before), time(4)) for before in (6, 4)]
    middle = clip("b", 1000, 40, effects=[otio.schema.LinearTimeWarp(time_scalar=speed)])
    track = otio.schema.Track("V1", [clip("a"), dissolves[0], middle, dissolves[1], clip("c")], kind=otio.schema.TrackKind.Video)
    lines = edl_text(Timeline(tmp_path / "cut.otio", otio.schema.Timeline("night"), NTSC, 0, drop=False), track).splitlines()
    events = [line for line in lines if line.startswith("00")]
    assert shown in events[2]
    assert f"{left} {left}" in events[3]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("M2   A001       048.0                01:00:00:00\n", "its speed is 200 %"),
        ("M2   A001      -024.0                01:00:00:00\n", "its speed is -100 %"),
        ("M2   A001       000.0                01:00:00:00\n", "it is a freeze frame"),
        ("M2   A001       023.9                01:00:00:00\n", ""),
        ("* FROM CLIP NAME: sh010\n", ""),
    ],
)
def test_speeds_of_unchanged_length(lines: str, reason: str, tmp_path: Path) -> None:
    text = event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00:00 10:00:02:00") + lines
    found = read(tmp_path, text, NTSC)
    (clip,) = clips_of(found, track_of(found, None))
    assert reason in clip.refused
    assert bool(reason) == bool(clip.refused)


def test_lengths_that_differ_without_a_speed_are_refused_alone(tmp_path: Path) -> None:
    text = event(1, "C", "01:00:00:00 01:00:02:01", "10:00:00:00 10:00:02:00") + event(
        2, "C", "01:00:00:00 01:00:02:00", "10:00:02:00 10:00:04:00"
    )
    found = read(tmp_path, text, NTSC)
    one, two = clips_of(found, track_of(found, None))
    assert one.refused == "its source has 49 frames, its place in the timeline 48, and no line M2 says its speed"
    assert not two.refused


@pytest.mark.parametrize(("source", "said"), [("00:00:41:18", "1002 frames .* 1000, .* 100.2 %"), ("00:00:41:16", "")])
def test_speed_below_a_tenth_is_refused(source: str, said: str, tmp_path: Path) -> None:
    """A line M2 has one decimal: 024.0 is written for 100.2 % too. The list that is written says the same."""
    text = event(1, "C", f"00:00:00:00 {source}", "01:00:00:00 01:00:41:16") + "M2   A001       024.0                00:00:00:00\n"
    found = read(tmp_path, text, Fraction(24))
    for timeline in (found, read(tmp_path, edl_text(found, track_of(found, None)), Fraction(24))):
        (clip,) = clips_of(timeline, track_of(timeline, None))
        assert re.search(said, clip.refused)
        assert bool(said) == bool(clip.refused)


@pytest.mark.parametrize(("background", "front"), [("K B", "K    000"), ("KB", "K O  012")])
def test_keys_are_refused_alone(background: str, front: str, tmp_path: Path) -> None:
    """CMX 3600 writes a key in two lines of one number, its background and its foreground."""
    text = (
        event(1, "C", "01:00:00:00 01:00:01:00", "01:00:00:00 01:00:01:00")
        + event(2, background, "01:00:01:00 01:00:02:00", "01:00:01:00 01:00:02:00")
        + event(2, front, "01:00:00:00 01:00:01:00", "01:00:01:00 01:00:02:00", "A002")
        + event(3, "C", "01:00:02:00 01:00:03:00", "01:00:02:00 01:00:03:00")
    )
    found = read(tmp_path, text, Fraction(24))
    clips = clips_of(found, track_of(found, None))
    assert [(clip.record.start, clip.refused) for clip in clips] == [
        (0, ""),
        (24, "it is a key (KB): render the key to a file first"),
        (48, ""),
    ]
    with pytest.raises(InvalidRequestError, match=r"a key.*ends in \.otio"):
        edl_text(found, track_of(found, None))


def test_sound_before_pictures_begins_the_list(tmp_path: Path) -> None:
    """Scripts count seconds from the first frame of the programme, also if that frame has only sound."""
    text = event(1, "C", "01:00:00:00 01:00:01:00", "01:00:10:00 01:00:11:00") + event(
        2, "C", "01:00:00:00 01:00:11:00", "01:00:00:00 01:00:11:00", "A002"
    ).replace(" V ", " A ")
    found = read(tmp_path, text, Fraction(24))
    (clip,) = clips_of(found, track_of(found, None))
    assert (found.label(0), clip.record) == ("01:00:00:00", range(240, 264))
    assert "01:00:10:00 01:00:11:00" in edl_text(found, track_of(found, None))


def test_disabled_clips_are_gaps(tmp_path: Path) -> None:
    """A dissolve into a disabled clip is a dissolve into black."""
    hidden = clip("b", 200, 20)
    hidden.enabled = False
    dissolve = otio.schema.Transition("", "SMPTE_Dissolve", time(4), time(4))
    kind = otio.schema.TrackKind.Video
    for items, reels in (
        ([clip("a"), hidden, clip("c")], ["AX", "AX"]),
        ([clip("a", 100, 20), dissolve, hidden.deepcopy(), clip("c")], ["AX", "AX", "BL", "AX"]),
    ):
        track = otio.schema.Track("V1", items, kind=kind)
        text = edl_text(Timeline(tmp_path / "cut.otio", otio.schema.Timeline("night"), NTSC, 0, drop=False), track)
        assert [line.split()[1] for line in text.splitlines() if line.startswith("00")] == reels
        assert not re.search(r"CLIP NAME:\s+b", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (event(1, "C", "01:01:00;00 01:01:02;00", "10:00:00;00 10:00:02;00"), "event 001: 01:01:00;00 does not exist at 29.97"),
        (event(1, "C", "01:00:00:31 01:00:02:00", "10:00:00:00 10:00:02:00"), "01:00:00:31 is no timecode at 29.97"),
        ("001 A001 V C 01:00:00:00\n", "cut.edl:1: no event of CMX 3600"),
        ("TITLE: night\n", "has no video event"),
        (event(1, "C", "01:00:00:00 01:00:00:00", "10:00:00:00 10:00:00:00"), "event 001 has no frame"),
        (
            event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00:00 10:00:02:00")
            + event(2, "C", "01:00:00:00 01:00:02:00", "10:00:01:00 10:00:03:00"),
            "event 002 begins before the event before it ends",
        ),
    ],
)
def test_lists_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(tmp_path, text)


def test_list_sorted_by_source_is_read(tmp_path: Path) -> None:
    """A list in C mode has its events in the order of the source. A dissolve keeps its two lines."""
    one = event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00:00 10:00:02:00")
    two = event(2, "C", "01:00:02:00 01:00:02:00", "10:00:02:00 10:00:02:00")
    two += event(2, "D    010", "01:00:01:00 01:00:03:00", "10:00:02:00 10:00:04:00")
    three = event(3, "C", "01:00:00:00 01:00:01:00", "10:00:04:00 10:00:05:00")
    lists = [read(tmp_path, text, Fraction(25)) for text in (one + two + three, three + two + one)]
    starts = [[clip.record for clip in clips_of(found, track_of(found, None))] for found in lists]
    assert starts[0] == starts[1]
    assert len(starts[0]) == 3


def test_sound_is_left_out_and_names_are_found(tmp_path: Path) -> None:
    text = (
        event(1, "C", "01:00:00:00 01:00:02:00", "10:00:00:00 10:00:02:00").replace(" V ", " AA/V ")
        + "* FROM CLIP NAME:  sh010\n* SOURCE FILE: A001C003.MOV\n"
        + event(2, "C", "01:00:00:00 01:00:02:00", "10:00:02:00 10:00:04:00").replace(" V ", " A ")
    )
    found = read(tmp_path, text, Fraction(25))
    (clip,) = clips_of(found, track_of(found, None))
    assert (clip.name, clip.files, clip.reels) == ("sh010", ("A001C003.MOV",), ("A001",))
