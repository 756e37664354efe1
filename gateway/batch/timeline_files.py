"""Files of timelines: to OpenTimelineIO and back.

| file      | read and written by          |
|-----------|------------------------------|
| `.otio`   | OpenTimelineIO               |
| `.edl`    | `gateway/batch/edl.py`       |
| `.fcpxml` | `gateway/batch/fcpxml.py`    |
| `.aaf`    | otio-aaf-adapter             |
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from gateway.batch import edl, fcpxml
from gateway.batch.timeline import (
    DROP_RATES,
    Timeline,
    exact_rate,
    frames_of,
    not_installed,
    noted_in,
    opentimelineio,
    rate_text,
    wrong_timeline,
)
from gateway.safe_paths import bounded_bytes
from services.common.errors import InvalidRequestError
from services.common.files import PARTIAL, write_whole

TIMELINE_SUFFIXES: Final = (".otio", ".edl", ".fcpxml", ".aaf")
"""Endings of the files of timelines that are read and written."""
_MOST_BYTES: Final = 256 << 20
"""Largest file of a timeline, bytes."""
_COMPOUND_FILE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
"""First bytes of an AAF."""


def read_timeline(path: Path, rate: Fraction | None = None) -> Timeline:
    """Read the file of a timeline. Blocks.

    Args:
        rate: frames per second. An EDL needs the rate, because EDLs do not name theirs. None: the file says the rate.

    Raises:
        InvalidRequestError: the file cannot be read, is no timeline, holds several timelines, or has another rate; or a package is
            not installed.
    """
    otio = opentimelineio()
    suffix = path.suffix.lower()
    if suffix not in TIMELINE_SUFFIXES:
        raise wrong_timeline(path, f"a timeline ends in {', '.join(TIMELINE_SUFFIXES)}")
    try:
        content = bounded_bytes(path, _MOST_BYTES)
    except OSError as problem:
        raise wrong_timeline(path, f"cannot be read: {problem.strerror or problem}") from problem
    if suffix == ".edl":
        if rate is None:
            raise wrong_timeline(path, "an EDL does not name its frame rate: give --rate, such as --rate 23.976")
        found: Any = edl.read_edl(content, rate, str(path))
    elif suffix == ".fcpxml":
        found = fcpxml.read_fcpxml(content, str(path))
    elif suffix == ".aaf":
        if not content.startswith(_COMPOUND_FILE):
            raise wrong_timeline(path, "no AAF")
        found = _read_aaf(path)
    else:
        try:
            found = otio.adapters.read_from_string(content.decode("utf-8"), "otio_json")
        except (otio.exceptions.OTIOError, ValueError, TypeError, LookupError, RuntimeError) as problem:
            raise wrong_timeline(path, "no timeline of OpenTimelineIO: its JSON cannot be read") from problem
    return _timeline(path, _only_timeline(path, found), rate)


def _read_aaf(path: Path) -> Any:
    otio = opentimelineio()
    try:
        import otio_aaf_adapter  # noqa: F401  # found by opentimelineio as a plug-in
    except ModuleNotFoundError as problem:
        raise not_installed(problem.name) from problem
    try:
        return otio.adapters.read_from_file(str(path), "AAF")
    except Exception as problem:
        # The package checks nothing of the file, and a damaged file raises errors of every kind.
        raise wrong_timeline(
            path, f"no AAF that otio-aaf-adapter reads ({type(problem).__name__}: {str(problem)[:200]})"
        ) from problem


def _only_timeline(path: Path, found: Any) -> Any:
    otio = opentimelineio()
    if isinstance(found, otio.schema.SerializableCollection):
        timelines = [item for item in found if isinstance(item, otio.schema.Timeline)]
        if len(timelines) != 1:
            raise wrong_timeline(path, f"holds {len(timelines)} timelines: export one timeline")
        found = timelines[0]
    if not isinstance(found, otio.schema.Timeline):
        raise wrong_timeline(path, "holds no timeline: export the timeline, not a clip or a bin")
    return found


def _timeline(path: Path, content: Any, rate: Fraction | None) -> Timeline:
    otio = opentimelineio()
    stated = []
    if content.global_start_time is not None:
        stated.append(content.global_start_time.rate)
    # Clips of sound may count samples.
    clips = [clip for track in content.video_tracks() for clip in track.find_clips()]
    stated += [clip.source_range.duration.rate for clip in clips if clip.source_range is not None]
    if not clips or not stated:
        raise wrong_timeline(path, "the timeline has no clips on a video track")
    found = exact_rate(stated[0])
    if found is None or not otio.opentime.RationalTime.is_smpte_timecode_rate(float(found)):
        raise wrong_timeline(path, f"{stated[0]:.6g} frames per second is no frame rate with timecodes")
    if rate is not None and rate != found:
        raise wrong_timeline(path, f"the timeline has {rate_text(found)} frames per second, and --rate says {rate_text(rate)}")
    start = 0
    if content.global_start_time is not None:
        try:
            start = round(frames_of(content.global_start_time, found))
        except ValueError as problem:
            raise wrong_timeline(path, f"the timeline begins at {problem}") from problem
    drop = bool(noted_in(content).get("drop", found in DROP_RATES))
    return Timeline(path, content, found, start, drop)


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
            f"--output {output} cannot be written: {problem.strerror or problem}", field="output"
        ) from problem


def check_output(output: Path) -> None:
    """Raise InvalidRequestError if a timeline cannot be written under a name."""
    if output.suffix.lower() not in TIMELINE_SUFFIXES:
        raise InvalidRequestError(f"--output {output}: a timeline ends in {', '.join(TIMELINE_SUFFIXES)}", field="output")


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
            f"--output {output}: otio-aaf-adapter writes only transitions that come from an AAF, and this timeline has "
            f"{len(drawn)} others: give an output that ends in .otio or .fcpxml",
            field="output",
        )
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
            f"--output {output}: otio-aaf-adapter cannot write this timeline ({said}): give an output that ends in .otio",
            field="output",
        ) from problem
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
