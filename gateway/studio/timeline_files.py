"""Files of timelines: to OpenTimelineIO and back.

| file      | read and written by          |
|-----------|------------------------------|
| `.otio`   | OpenTimelineIO               |
| `.edl`    | `gateway/studio/edl.py`       |
| `.fcpxml` | `gateway/studio/fcpxml.py`    |
| `.aaf`    | otio-aaf-adapter             |
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from gateway.studio import edl, fcpxml
from gateway.studio.reading_process import read_in_process
from gateway.studio.timeline import (
    DROP_RATES,
    Timeline,
    clips_of,
    exact_rate,
    frames_of,
    not_installed,
    noted_in,
    opentimelineio,
    rate_text,
    timecode_label,
    wrong_timeline,
)
from services.common.errors import InvalidRequestError
from services.common.files import PARTIAL, write_whole
from services.common.texts import Option, Text

TIMELINE_SUFFIXES: Final = (".otio", ".edl", ".fcpxml", ".aaf")
"""Endings of the files of timelines that are read and written."""
_BUNDLE: Final = ".fcpxmld"
"""Ending of the folders that Final Cut Pro writes."""
_MOST_BYTES: Final = 256 << 20
"""Largest file of a timeline, bytes."""
_MOST_NESTED: Final = 200
"""Deepest brackets of the JSON of a timeline. Timelines of editing programs have about 30."""
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""String of JSON. The last one may be cut off."""
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
"""All bytes that are no brackets."""
_NO_TIME: Final = re.compile(rb'"(?:rate|value|time_scalar)"\s*:\s*-?(?:NaN|Inf)')
"""Time of OpenTimelineIO that is no finite number."""
_COMPOUND_FILE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
"""First bytes of an AAF."""


def read_timeline(path: Path, rate: Fraction | None = None) -> Timeline:
    """Read the file of a timeline in a process with bounds on memory and time. Blocks.

    Args:
        rate: frames per second. An EDL needs the rate, because EDLs do not name theirs. None: the file says the rate.

    Raises:
        InvalidRequestError: the file cannot be read, is no timeline, holds several timelines, or has another rate; or a package is
            not installed.
    """
    otio = opentimelineio()
    suffix = path.suffix.lower()
    if suffix == _BUNDLE:
        raise wrong_timeline(path, "a folder of Final Cut Pro: give the file Info.fcpxml in it")
    if suffix not in TIMELINE_SUFFIXES:
        raise wrong_timeline(path, f"a timeline ends in {', '.join(TIMELINE_SUFFIXES)}")
    if suffix == ".edl" and rate is None:
        raise wrong_timeline(path, Text("an EDL does not name its frame rate: give {rate}, such as 23.976", rate=Option("rate")))
    question = {"path": str(path), "rate": None if rate is None else str(rate)}
    facts = read_in_process("timeline", path, question, most_bytes=_MOST_BYTES)
    content = otio.adapters.read_from_string(facts["content"], "otio_json")
    return Timeline(path, content, Fraction(facts["rate"]), facts["start"], facts["drop"])


def timeline_facts(handle: int, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `read_timeline` needs of the file of a descriptor. For the process that reads the file.

    A timeline that ends this process, such as one that OpenTimelineIO does not expect, does so here, and not in the caller.

    Args:
        handle: descriptor of the file.
        question: path of the file, for messages, and frame rate, as `read_timeline` sends them.

    Raises:
        InvalidRequestError: as `read_timeline`.
    """
    otio = opentimelineio()
    path, rate = Path(question["path"]), None if question["rate"] is None else Fraction(question["rate"])
    content = _only_timeline(path, _parsed(handle, path, rate))
    text = str(otio.adapters.write_to_string(content, "otio_json"))
    _check_text(path, text.encode())
    timeline = _timeline(path, otio.adapters.read_from_string(text, "otio_json"), rate)
    for track in timeline.content.video_tracks():
        with suppress(InvalidRequestError):  # the caller may choose another track
            clips_of(timeline, track)
    timeline.content.deepcopy()
    return {"content": text, "rate": str(timeline.rate), "start": timeline.start, "drop": timeline.drop}


def _parsed(handle: int, path: Path, rate: Fraction | None) -> Any:
    """Return what the file of a descriptor holds, as an object of OpenTimelineIO."""
    otio = opentimelineio()
    suffix = path.suffix.lower()
    with open(handle, "rb", closefd=False) as stream:
        content = stream.read()
    if suffix == ".edl" and rate is not None:
        return edl.read_edl(content, rate, str(path))
    if suffix == ".fcpxml":
        return fcpxml.read_fcpxml(content, str(path))
    if suffix == ".aaf":
        if not content.startswith(_COMPOUND_FILE):
            raise wrong_timeline(path, "no AAF")
        del content
        return _read_aaf(handle, path)
    _check_text(path, content)
    try:
        return otio.adapters.read_from_string(content.decode("utf-8-sig"), "otio_json")
    except (otio.exceptions.OTIOError, ValueError, TypeError, LookupError, RuntimeError) as problem:
        said = " ".join(str(problem).split())[:300]
        raise wrong_timeline(path, f"no timeline of OpenTimelineIO ({said}); export the timeline again") from problem


def _check_text(path: Path, content: bytes) -> None:
    """Raise InvalidRequestError if the JSON of a timeline is nested so deeply that readers call themselves until they crash."""
    brackets = _STRING.sub(b"", content).translate(None, delete=_OTHERS)
    for _ in range(_MOST_NESTED):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise wrong_timeline(
            path,
            f"no timeline of OpenTimelineIO: brackets of its JSON are not closed, or are nested more than {_MOST_NESTED} deep; "
            "export the timeline again",
        )
    if _NO_TIME.search(content):
        raise wrong_timeline(path, "a time in the timeline is no finite number; export the timeline again")


def _read_aaf(handle: int, path: Path) -> Any:
    otio = opentimelineio()
    try:
        import otio_aaf_adapter  # noqa: F401  # found by opentimelineio as a plug-in
    except ModuleNotFoundError as problem:
        raise not_installed(problem.name) from problem
    try:
        return otio.adapters.read_from_file(f"/proc/self/fd/{handle}", "AAF")
    except Exception as problem:
        # The package checks nothing of the file, and a damaged file raises errors of every kind.
        raise wrong_timeline(
            path, f"no AAF that otio-aaf-adapter reads ({type(problem).__name__}: {str(problem)[:200]})"
        ) from problem


def _only_timeline(path: Path, parsed: Any) -> Any:
    otio = opentimelineio()
    if isinstance(parsed, otio.schema.SerializableCollection):
        timelines = [item for item in parsed if isinstance(item, otio.schema.Timeline)]
        if len(timelines) != 1:
            raise wrong_timeline(path, f"holds {len(timelines)} timelines: export one timeline")
        parsed = timelines[0]
    if not isinstance(parsed, otio.schema.Timeline):
        raise wrong_timeline(path, "holds no timeline: export the timeline, not a clip or a bin")
    return parsed


def _timeline(path: Path, content: Any, rate: Fraction | None) -> Timeline:
    otio = opentimelineio()
    stated = []
    if content.tracks is None:
        raise wrong_timeline(path, "the timeline has no tracks: its field `tracks` is empty; export the timeline again")
    if content.global_start_time is not None:
        stated.append(content.global_start_time.rate)
    # Clips of sound may count samples.
    clips = [clip for track in content.video_tracks() for clip in track.find_clips()]
    stated += [clip.source_range.duration.rate for clip in clips if clip.source_range is not None]
    if not clips or not stated:
        raise wrong_timeline(path, "the timeline has no clips on a video track")
    stated_rate = exact_rate(stated[0])
    if stated_rate is None or not otio.opentime.RationalTime.is_smpte_timecode_rate(float(stated_rate)):
        raise wrong_timeline(path, f"{stated[0]:.6g} frames per second is no frame rate with timecodes")
    if rate is not None and rate != stated_rate:
        raise wrong_timeline(
            path, f"the timeline has {rate_text(stated_rate)} frames per second, and not {rate_text(rate)}, the rate that was given"
        )
    start = 0
    if content.global_start_time is not None:
        try:
            start = round(frames_of(content.global_start_time, stated_rate))
        except ValueError as problem:
            raise wrong_timeline(path, f"the timeline begins at {problem}") from problem
    drop = bool(noted_in(content).get("drop", _seems_drop(start, stated_rate)))
    return Timeline(path, content, stated_rate, start, drop)


def _seems_drop(start: int, rate: Fraction) -> bool:
    """Return whether timecodes are drop frame, of a timeline that does not say so and begins at a number of frames.

    Timelines begin at whole seconds. If both readings or none do, timecodes are drop frame.
    """
    whole = {drop: timecode_label(start, rate, drop=drop).endswith("00") for drop in (False, True)}
    return rate in DROP_RATES and whole[False] <= whole[True]


def write_timeline(timeline: Timeline, output: Path, *, tracks: Sequence[Any]) -> None:
    """Write a timeline to a file, whole or not at all. Blocks.

    Args:
        timeline: the timeline, with its new tracks.
        output: file to write, ending in one of TIMELINE_SUFFIXES.
        tracks: new tracks. An EDL holds one track, and has the clips of the one that is given.

    Raises:
        InvalidRequestError: the format cannot hold the timeline, or the file cannot be written.
    """
    otio = opentimelineio()
    suffix = output.suffix.lower()
    try:
        if suffix == ".edl":
            write_whole(output, edl.edl_text(timeline, tracks[0]).encode())
        elif suffix == ".fcpxml":
            write_whole(output, fcpxml.fcpxml_text(timeline).encode())
        elif suffix == ".aaf":
            _write_aaf(timeline, output)
        else:
            write_whole(output, otio.adapters.write_to_string(timeline.content, "otio_json").encode())
    except OSError as problem:
        raise InvalidRequestError(
            f"{output} cannot be written: {problem.strerror or problem}", field="output", named=True
        ) from problem


def check_output(output: Path) -> None:
    """Raise InvalidRequestError if a timeline cannot be written under a name."""
    if output.suffix.lower() not in TIMELINE_SUFFIXES:
        raise InvalidRequestError(f"{output}: a timeline ends in {', '.join(TIMELINE_SUFFIXES)}", field="output", named=True)


def _hide_disabled(content: Any) -> None:
    """Put gaps in place of disabled items and of the items of disabled tracks, which otio-aaf-adapter would write as shown."""
    otio = opentimelineio()
    for track in content.tracks:
        for index, item in enumerate(list(track)):
            hidden = not isinstance(item, otio.schema.Transition | otio.schema.Gap) and not (item.enabled and track.enabled)
            if hidden:
                track[index] = otio.schema.Gap(duration=item.trimmed_range().duration)


def _write_aaf(timeline: Timeline, output: Path) -> None:
    otio = opentimelineio()
    try:
        import otio_aaf_adapter  # noqa: F401  # found by opentimelineio as a plug-in
    except ModuleNotFoundError as problem:
        raise not_installed(problem.name) from problem
    partial = output.with_name(f"{PARTIAL}{secrets.token_hex(8)}.aaf")
    content = timeline.content.deepcopy()
    drawn = [one for one in content.find_children(otio.schema.Transition) if not one.metadata.get("AAF")]
    if drawn:
        raise InvalidRequestError(
            f"{output}: otio-aaf-adapter writes only transitions that come from an AAF, and this timeline has "
            f"{len(drawn)} others: give an output that ends in .otio or .fcpxml",
            field="output",
            named=True,
        )
    _hide_disabled(content)
    for clip in content.find_clips():
        # AAF wants the extent of all media, also of media that is offline.
        if clip.media_reference.available_range is None:
            reference = clip.media_reference.deepcopy()
            reference.available_range = clip.trimmed_range()
            clip.media_reference = reference
    try:
        otio.adapters.write_to_file(content, str(partial), "AAF", use_empty_mob_ids=True)
        os.replace(partial, output)
    except OSError:
        raise
    except Exception as problem:
        # The package refuses what it cannot write with errors of every kind.
        said = " ".join(str(problem).split())[:300]
        raise InvalidRequestError(
            f"{output}: otio-aaf-adapter cannot write this timeline ({said}): give an output that ends in .otio",
            field="output",
        ) from problem
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
