"""Timelines and dubbing scripts that were made to do harm: one error that names the file, or a right result, and no crash."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import opentimelineio as otio
import pytest

from gateway.studio import reading_process
from gateway.studio.dubbing_script import read_script
from gateway.studio.timeline import Timeline, clips_of, track_of
from gateway.studio.timeline_files import read_timeline, write_timeline
from services.common.errors import InvalidRequestError
from tests.unit.batch.painted import clip, time

RATE: Final = Fraction(25)
DEEP: Final = 200_000
TTML: Final = '<tt xmlns="http://www.w3.org/ns/ttml" xml:lang="de"><body>{body}</body></tt>'
BOMB: Final = (
    '<!DOCTYPE x [<!ENTITY a "'
    + "x" * 1000
    + '">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 20}">' for n in range(8))
    + "]>"
)
"""Entities that would become 25 TB of text."""

TIMELINES: Final[dict[str, tuple[str, bytes, str]]] = {
    "nested lists": ("cut.otio", b"[" * DEEP + b"]" * DEEP, "nested more than 200 deep"),
    "lists that are not closed": ("cut.otio", b"[" * DEEP, "are not closed"),
    "nested objects": ("cut.otio", b'{"a":' * DEEP + b"1" + b"}" * DEEP, "nested more than 200 deep"),
    "a string that is not closed": ("cut.otio", b'"' + b'\\"' * DEEP, "no timeline of OpenTimelineIO"),
    "brackets in a string": ("cut.otio", b'"' + b"[" * DEEP + b'"', "holds no timeline"),
    "a NUL in a schema": ("cut.otio", rb'{"OTIO_SCHEMA": "Time\u0000line.1", "name": "a"}', "holds no timeline"),
    "no tracks": ("cut.otio", b'{"OTIO_SCHEMA": "Timeline.1", "name": "a", "tracks": null}', "the timeline has no tracks"),
    "a reserved schema": (
        "cut.otio",
        b'{"OTIO_SCHEMA": "Timeline.1", "name": "a", "tracks": {"OTIO_SCHEMA": "UnknownSchema.1"}}',
        "the library that reads it crashes",
    ),
    "infinite times": (
        "cut.otio",
        b'{"OTIO_SCHEMA": "Timeline.1", "name": "a", "global_start_time": {"OTIO_SCHEMA": "RationalTime.1", "rate": Infinity,'
        b'"value": 0}, "tracks": {"OTIO_SCHEMA": "Stack.1", "children": [], "name": "a"}}',
        "no finite number",
    ),
    "an encoding that is none": ("cut.fcpxml", b'<?xml version="1.0" encoding="rot13"?><fcpxml/>', "not XML"),
    "an unknown encoding": ("cut.fcpxml", b'<?xml version="1.0" encoding="no-such"?><fcpxml/>', "not XML"),
    "nested elements": ("cut.fcpxml", b"<fcpxml>" + b"<spine>" * DEEP + b"</spine>" * DEEP + b"</fcpxml>", "holds 0 projects"),
    "an XML bomb": ("cut.fcpxml", BOMB.encode() + b"<fcpxml>&i;</fcpxml>", "not XML"),
    "an AAF of noise": ("cut.aaf", bytes.fromhex("d0cf11e0a1b11ae1") + random.Random(1).randbytes(4096), "no AAF"),
    "a list of noise": ("cut.edl", random.Random(2).randbytes(4096), "cut.edl"),
}
SCRIPTS: Final[dict[str, tuple[str, str, str]]] = {
    "a long field": ("s.csv", "start,text\n1," + "x" * (1 << 18) + "\n", "line 2: no CSV"),
    "quotes that are not closed": ("s.csv", 'start,text\n1,"' + "x\n" * (1 << 18), "no CSV"),
    "a long head": ("s.csv", "x" * (1 << 18), "line 1: no CSV"),
    "a column twice": ("s.csv", "start,start\n1,2\n", "the column `start` stands twice"),
    "noise": ("s.srt", "\0\x01 --> \x02\n" * 100, "the script has no line"),
    "times of nowhere": ("s.srt", "99:99:99,999 --> " + "9" * 400 + "\n1 --> 2\n", "row 2: .* are no times"),
    "nested elements": ("s.ttml", TTML.format(body="<div>" * DEEP + "</div>" * DEEP), "s.ttml"),
    "an XML bomb": ("s.ttml", BOMB + TTML.format(body="<div><p>&i;</p></div>").replace("<tt", "<x:tt"), "not XML"),
    "an encoding that is none": ("s.ttml", '<?xml version="1.0" encoding="rot13"?>' + TTML.format(body=""), "s.ttml"),
}
_NUMBERS: Final = (0.0, -1.0, 1e308, -1e308, 0.5, 1e-300, float("nan"), float("inf"), 24.0, 1e9)
_TEXTS: Final = (
    *("", "\ud800", "a\0b", "../..", "\n", "x" * 9000, "http://[x", "Stack.1", "Track.1", "Gap.1", "Clip.1", "Clip.99"),
    *("MissingReference.1", "GeneratorReference.1", "FreezeFrame.1", "TimeEffect.1", "Item.1", "Transition.1", "UnknownSchema.1"),
)
_ANY: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    1.5,
    "x",
    [],
    [None],
    {},
    {"OTIO_SCHEMA": "Nope.1"},
    {"OTIO_SCHEMA": "Gap.1", "name": "g"},
    10**30,
)


@pytest.mark.parametrize("kind", TIMELINES)
def test_harmful_timelines(kind: str, tmp_path: Path) -> None:
    name, content, words = TIMELINES[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match=words) as caught:
        read_timeline(tmp_path / name, RATE if name.endswith(".edl") else None)
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.field == "timeline"


@pytest.mark.parametrize("kind", SCRIPTS)
def test_harmful_scripts(kind: str, tmp_path: Path) -> None:
    name, text, words = SCRIPTS[kind]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    with pytest.raises(InvalidRequestError, match=words) as caught:
        read_script(tmp_path / name, "de", Timeline(Path("cut.edl"), otio.schema.Timeline(), RATE, 0, False))
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.field == "script"


def _read(path: Path) -> None:
    if path.suffix == ".otio":
        read_timeline(path)
    else:
        read_script(path, "de", Timeline(Path("cut.edl"), otio.schema.Timeline(), RATE, 0, False))


@pytest.mark.parametrize("name", ["cut.otio", "s.csv"])
def test_files_that_are_not_regular(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidRequestError, match=f"{name}: cannot be read: not a regular file"):
        _read(tmp_path / name)


@pytest.mark.parametrize(
    ("limit", "value", "words"), [("_MEMORY_BYTES", 400 << 20, "GiB of memory"), ("_BASE_S", 0, "takes more than 1 s")]
)
def test_memory_and_time_are_bounded(limit: str, value: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of 26 MB takes some seconds and 1 GB."""
    (tmp_path / "s.csv").write_text("start\n" + "00:00:01:00\n" * (1 << 21))
    monkeypatch.setattr(reading_process, limit, value)
    monkeypatch.setattr(reading_process, "_BYTES_PER_S", 1 << 40)
    with pytest.raises(InvalidRequestError, match=rf"s\.csv: reading it .*{words}"):
        _read(tmp_path / "s.csv")


def _timeline() -> dict[str, Any]:
    """Return a timeline with an item of each kind, as JSON values."""
    timeline = otio.schema.Timeline("night", global_start_time=time(0))
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    fast = otio.schema.LinearTimeWarp(time_scalar=1.0)
    dissolve = otio.schema.Transition("", "SMPTE_Dissolve", time(2), time(2))
    track.extend([clip("a", effects=[fast]), dissolve, clip("b"), otio.schema.Gap(duration=time(5)), clip("c")])
    track[0].media_reference.available_range = otio.opentime.TimeRange(time(0), time(500))
    track[0].markers.append(otio.schema.Marker(name="m", marked_range=otio.opentime.TimeRange(time(100), time(1))))
    track[0].metadata["dubstage"] = {"drop": True, "reel": "A"}
    timeline.tracks.append(track)
    found: dict[str, Any] = json.loads(otio.adapters.write_to_string(timeline, "otio_json"))
    return found


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*above, key)
        yield from _places(one, (*above, key))


def _changed(seed: int) -> dict[str, Any]:
    """Return the timeline with one to three other values, half of them of the type that was there."""
    draw, content = random.Random(seed), _timeline()
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.choice(list(_places(content)))
        owner: Any = content
        for key in place[:-1]:
            owner = owner[key]
        old = owner[place[-1]]
        same = {float: _NUMBERS, int: _NUMBERS, str: _TEXTS, list: ([], [None])}.get(type(old), _ANY)
        owner[place[-1]] = draw.choice(same if draw.random() < 0.7 else _ANY)
    return content


def _used(path: Path) -> str:
    """Do with a timeline what the commands do, and return the refusal; empty: there is none."""
    try:
        timeline = read_timeline(path)
        track = track_of(timeline, None)
        for one in clips_of(timeline, track):
            _ = one.file_names, one.reel_names, one.title, timeline.label(one.record.start)
    except InvalidRequestError as refusal:
        return refusal.message
    for suffix in (".edl", ".fcpxml", ".otio"):
        with suppress(InvalidRequestError):
            write_timeline(timeline, path.with_suffix(f".out{suffix}"), tracks=[track])
    return ""


def _check_changed(seeds: Sequence[int], folder: Path) -> None:
    paths = {seed: folder / f"cut{seed}.otio" for seed in seeds}
    for seed, path in paths.items():
        path.write_text(json.dumps(_changed(seed)))
    with ThreadPoolExecutor(2) as threads:
        refusals = list(threads.map(_used, paths.values()))
    assert all(str(path) in said for path, said in zip(paths.values(), refusals, strict=True) if said)
    assert "" in refusals


def test_changed_timelines(tmp_path: Path) -> None:
    """Wrong types and values in each field of a timeline are refused, or do no harm."""
    _check_changed((1, 2, 4, 6, 18, 20, 22, 28), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_changed_timelines(tmp_path: Path) -> None:
    _check_changed(range(30, 230), tmp_path)
