"""Files of timelines: what is no timeline is told in one sentence."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import opentimelineio as otio
import pytest

from gateway.studio.timeline import Timeline, clips_of, track_of
from gateway.studio.timeline_files import read_timeline, write_timeline
from services.common.errors import InvalidRequestError
from tests.unit.batch.painted import NTSC, clip, time


def test_rates_without_timecodes_are_refused(tmp_path: Path) -> None:
    timeline = otio.schema.Timeline("night")
    timeline.tracks.append(otio.schema.Track("V1", children=[clip("a", rate=Fraction(17))], kind=otio.schema.TrackKind.Video))
    otio.adapters.write_to_file(timeline, str(tmp_path / "cut.otio"), "otio_json")
    with pytest.raises(InvalidRequestError, match="17 frames per second is no frame rate with timecodes"):
        read_timeline(tmp_path / "cut.otio")


@pytest.mark.parametrize(
    ("start", "label"),
    [(None, "00:00:00;00"), (108_000, "01:00:00:00"), (107_892, "01:00:00;00"), (17, "00:00:00;17"), (30, "00:00:01;00")],
)
def test_whole_seconds_tell_drop_frame(start: int | None, label: str, tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    timeline = otio.schema.Timeline("night", global_start_time=None if start is None else time(start, rate))
    timeline.tracks.append(otio.schema.Track("V1", children=[clip("a", rate=rate)], kind=otio.schema.TrackKind.Video))
    otio.adapters.write_to_file(timeline, str(tmp_path / "cut.otio"), "otio_json")
    assert read_timeline(tmp_path / "cut.otio").label(0) == label


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.xml", b"", "a timeline ends in .otio, .edl, .fcpxml, .aaf"),
        ("cut.fcpxmld", b"", "give the file Info.fcpxml in it"),
        ("cut.otio", b'\xef\xbb\xbf{"OTIO_SCHEMA": "RationalTime.1", "rate": 24.0, "value": 1.0}', "holds no timeline"),
        ("cut.otio", b"{", "no timeline of OpenTimelineIO"),
        ("cut.otio", b"\xff\xfe", "no timeline of OpenTimelineIO"),
        ("cut.otio", b'{"OTIO_SCHEMA": "Timeline.1", "name": "a"}', "no timeline of OpenTimelineIO"),
        ("cut.otio", b'{"OTIO_SCHEMA": "RationalTime.1", "rate": 24.0, "value": 1.0}', "holds no timeline"),
        ("cut.edl", b"TITLE: a\n", "give rate"),
        ("cut.fcpxml", b"<fcpxml><a></fcpxml>", "not XML"),
        ("cut.fcpxml", b"<fcpxml/>", "holds 0 projects"),
        ("cut.aaf", b"not an AAF", "cut.aaf: no AAF"),
        (
            "cut.otio",
            b'{"OTIO_SCHEMA": "Timeline.1", "name": "a", "tracks": {"OTIO_SCHEMA": "Stack.1", "children": [], "name": "a"}}',
            "has no clips on a video track",
        ),
    ],
)
def test_files_that_are_no_timelines(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        read_timeline(tmp_path / name)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e300", "1e300", "0.0"])
@pytest.mark.parametrize("field", ["rate", "value"])
@pytest.mark.parametrize("part", ["global_start_time", "source_range", "available_range", "in_offset"])
def test_hostile_numbers_are_refused_or_harmless(value: str, field: str, part: str, tmp_path: Path) -> None:
    """A file of any numbers gives clips or one error, and nothing else."""
    timeline = otio.schema.Timeline("night", global_start_time=time(0))
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    track.extend([clip("a"), otio.schema.Transition("", "SMPTE_Dissolve", time(2), time(2)), clip("b")])
    track[0].media_reference.available_range = otio.opentime.TimeRange(time(0), time(500))
    timeline.tracks.append(track)
    content = json.loads(otio.adapters.write_to_string(timeline, "otio_json"))
    first, dissolve, _ = content["tracks"]["children"][0]["children"]
    media = next(iter(first["media_references"].values()))
    owner = {"global_start_time": content, "source_range": first, "available_range": media, "in_offset": dissolve}[part]
    time_of = owner[part] if "rate" in owner[part] else owner[part]["start_time"]
    time_of[field] = "PLACE"
    first["metadata"] = {"dubstage": 3, "cmx_3600": [1]}
    (tmp_path / "cut.otio").write_text(json.dumps(content).replace('"PLACE"', value))
    with suppress(InvalidRequestError):
        found = read_timeline(tmp_path / "cut.otio")
        clips_of(found, track_of(found, None))


@pytest.mark.parametrize("package", ["opentimelineio", "otio_aaf_adapter"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package may be missing in this process, or in the process that reads the file."""
    (tmp_path / "cut.aaf").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1"))
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})")
    monkeypatch.syspath_prepend(tmp_path)
    if package == "opentimelineio":
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidRequestError, match=rf"need the package {package}.*dubstage-suite\[timelines\]"):
        read_timeline(tmp_path / "cut.aaf")


def test_aaf_shows_no_disabled_clip(tmp_path: Path) -> None:
    """otio-aaf-adapter writes disabled clips and tracks as shown ones."""
    content = otio.schema.Timeline("night", global_start_time=time(0))
    for name in ("V1", "V2"):
        content.tracks.append(otio.schema.Track(name, [clip(name), clip("b"), clip("c")], kind=otio.schema.TrackKind.Video))
    for one in content.find_clips():
        one.media_reference.available_range = otio.opentime.TimeRange(time(0), time(500))
    content.tracks[0][1].enabled = content.tracks[1].enabled = False
    write_timeline(Timeline(tmp_path / "cut.otio", content, NTSC, 0, drop=False), tmp_path / "cut.aaf", tracks=[])
    found = read_timeline(tmp_path / "cut.aaf")
    assert [[one.record.start for one in clips_of(found, track)] for track in found.content.video_tracks()] == [[0, 20]]
    assert [one.enabled for one in content.tracks[0]] == [True, False, True]
