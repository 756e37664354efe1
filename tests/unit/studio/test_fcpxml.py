"""FCPXML as Final Cut writes it: exact fractions, connected clips and storylines, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from gateway.studio.timeline import Timeline, clips_of, track_of
from gateway.studio.timeline_files import read_timeline, write_timeline
from services.common.errors import InvalidRequestError

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.9"><resources>
<format id="r1" frameDuration="1001/24000s"/><format id="r9" frameDuration="100/2500s"/>
<asset id="r2" name="A001" start="86486400/24000s" duration="240240/24000s" format="r1"><media-rep src="file:///m/A001.mov"/></asset>
<asset id="r3" name="A002" src="file:///m/A002.mov" start="0s" duration="10s" format="r9"/>
</resources><library><event><project name="night"><sequence format="r1" tcStart="86486400/24000s" tcFormat="NDF"><spine>
"""
TAIL = "</spine></sequence></project></event></library></fcpxml>"


def read(tmp_path: Path, spine: str) -> Timeline:
    (tmp_path / "cut.fcpxml").write_text(HEAD + spine + TAIL)
    return read_timeline(tmp_path / "cut.fcpxml")


def at(frames: int, tag: str = "offset") -> str:
    return f'{tag}="{(86_400 + frames) * 1001}/24000s"'


def lasting(frames: int) -> str:
    return f'duration="{frames * 1001}/24000s"'


def inside(frames: int) -> str:
    """The offset in a storyline that is not the first one."""
    return lasting(frames).replace("duration", "offset")


def test_times_are_exact_fractions(tmp_path: Path) -> None:
    """Every frame of ten seconds, where floating point loses some."""
    spine = "".join(f'<asset-clip ref="r2" name="c{n}" {at(n)} {at(n, "start")} {lasting(1)}/>' for n in range(240))
    found = read(tmp_path, spine)
    assert (found.rate, found.start) == (Fraction(24000, 1001), 86_400)
    clips = clips_of(found, track_of(found, None))
    assert [(clip.record.start, clip.source) for clip in clips] == [(n, 86_400 + n) for n in range(240)]
    assert {(clip.media, clip.files, clip.refused) for clip in clips} == {(range(86_400, 86_640), ("file:///m/A001.mov",), "")}


def test_connected_clips_storylines_and_transitions(tmp_path: Path) -> None:
    spine = (
        f'<asset-clip ref="r2" name="a" {at(0)} {at(20, "start")} {lasting(48)}>'
        f'<asset-clip ref="r2" name="above" lane="1" {at(30)} {at(5, "start")} {lasting(6)}/>'
        f'<spine lane="2" {at(44)}><asset-clip ref="r2" name="story" offset="0s" {lasting(7)}/>'
        f'<transition {inside(5)} {lasting(4)}/><asset-clip ref="r2" name="next" {inside(7)} {at(50, "start")} {lasting(4)}/>'
        f'<gap {inside(11)} {lasting(2)}/><asset-clip ref="r2" name="late" {inside(13)} {lasting(3)}/></spine></asset-clip>'
        f'<transition name="Cross Dissolve" {at(44)} {lasting(8)}/>'
        f'<clip name="b" {at(48)} {at(0, "start")} {lasting(24)}><video ref="r2" {at(0)} {at(10, "start")}/></clip>'
        f'<gap name="Gap" {at(72)} start="3600s" {lasting(12)}/>'
        f'<asset-clip ref="r2" name="c" {at(84)} {lasting(24)}/>'
    )
    found = read(tmp_path, spine)
    first, second, third = clips_of(found, track_of(found, "V1"))
    assert [(clip.record, clip.source, clip.before, clip.after) for clip in (first, second, third)] == [
        (range(48), 86_420, 0, 4),
        (range(48, 72), 86_410, 4, 0),
        (range(84, 108), 86_400, 0, 0),
    ]
    (above,), story = (clips_of(found, track_of(found, name)) for name in ("V2", "V3"))
    assert (above.record, above.source) == (range(10, 16), 86_405)
    assert [(clip.record, clip.source, clip.before, clip.after) for clip in story] == [
        (range(24, 31), 86_400, 0, 2),
        (range(31, 35), 86_450, 2, 0),
        (range(37, 40), 86_400, 0, 0),
    ]

    write_timeline(found, tmp_path / "back.fcpxml", tracks=[])
    again = read_timeline(tmp_path / "back.fcpxml")
    for name in ("V1", "V2", "V3"):
        kept = [[(c.record, c.source, c.before, c.after, c.files) for c in clips_of(t, track_of(t, name))] for t in (found, again)]
        assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (f'<ref-clip ref="r5" {at(0)} {lasting(5)}/>', "it is a compound clip"),
        (f'<mc-clip ref="r5" {at(0)} {lasting(5)}/>', "it is a multicam clip"),
        (f"<title {at(0)} {lasting(5)}/>", "it is a title and has no media"),
        (f'<asset-clip ref="r3" {at(0)} {lasting(5)}/>', "its media has 25 frames per second, and the timeline 23.976"),
        (f'<asset-clip ref="r2" {at(0)} {lasting(5)}><timeMap/></asset-clip>', "it has a speed change"),
        (f'<asset-clip ref="r2" {at(0)} duration="1/7s"/>', "between two frames"),
    ],
)
def test_inexact_clips_are_refused(element: str, reason: str, tmp_path: Path) -> None:
    found = read(tmp_path, element)
    (clip,) = clips_of(found, track_of(found, None))
    assert reason in clip.refused


def test_clips_without_duration_show_their_media(tmp_path: Path) -> None:
    """The document type makes `duration` optional, and Final Cut takes the media to its end."""
    spine = (
        '<asset-clip ref="r2" name="all"/>'
        f'<asset-clip ref="r2" name="rest" {at(100, "start")}><asset-clip ref="r2" name="above" lane="1" {at(110)}/></asset-clip>'
        f'<ref-clip ref="r4" name="compound"/><audition><asset-clip ref="r2" {lasting(7)}/><asset-clip ref="r2"/></audition>'
        f'<asset-clip ref="r2" name="late" {lasting(5)}/>'
    )
    media = f'<media id="r4"><sequence format="r1" {lasting(30)}/></media></resources>'
    (tmp_path / "cut.fcpxml").write_text(HEAD.replace("</resources>", media) + spine + TAIL)
    found = read_timeline(tmp_path / "cut.fcpxml")
    clips = clips_of(found, track_of(found, "V1"))
    assert [clip.record for clip in clips] == [range(240), range(240, 380), range(380, 410), range(410, 417), range(417, 422)]
    assert [clip.source for clip in clips[:2]] == [86_400, 86_500]
    (above,) = clips_of(found, track_of(found, "V2"))
    assert above.record == range(250, 490)


def test_clips_of_disabled_tracks_stay_hidden(tmp_path: Path) -> None:
    above = f'<asset-clip ref="r2" name="b" lane="1" {at(2)} {lasting(5)}/>'
    spine = f'<asset-clip ref="r2" name="a" {at(0)} {lasting(9)}>{above}</asset-clip>'
    found = read(tmp_path, spine)
    track_of(found, "V2").enabled = False
    write_timeline(found, tmp_path / "back.fcpxml", tracks=[])
    again = read_timeline(tmp_path / "back.fcpxml")
    assert [len(clips_of(again, track_of(again, name))) for name in ("V1", "V2")] == [1, 0]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="'3,5s' is no time"):
        read(tmp_path, '<asset-clip ref="r2" offset="3,5s" duration="1s"/>')
    with pytest.raises(InvalidRequestError, match="'b' has no duration"):
        read(tmp_path, '<title name="b"/>')
    with pytest.raises(InvalidRequestError, match="'b' begins before the clip before it ends"):
        read(tmp_path, f'<asset-clip ref="r2" {at(0)} {lasting(9)}/><asset-clip ref="r2" name="b" {at(5)} {lasting(9)}/>')
