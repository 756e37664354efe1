"""Timelines: frame rates, timecodes, and the clips of a track with exact frames.

A clip that cannot be dubbed on exact frames is refused with a reason, and never rounded.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlparse

from gateway.media.locations import has_unknown_protocol
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

if TYPE_CHECKING:
    import opentimelineio as otio

_MOST_FRAMES: Final = 1e9
DROP_RATES: Final = (Fraction(30000, 1001), Fraction(60000, 1001))
"""Frame rates that have drop-frame timecodes."""
_KEY: Final = "dubstage"
"""Key of what dubstage notes in the metadata of a timeline and its clips."""


def opentimelineio() -> Any:
    """Return the module `opentimelineio`.

    Raises:
        InvalidRequestError: the package is not installed.
    """
    try:
        import opentimelineio
    except ModuleNotFoundError as problem:
        raise not_installed(problem.name) from problem
    return opentimelineio


def not_installed(package: str | None) -> InvalidRequestError:
    """Return the error that a package is missing."""
    return InvalidRequestError(
        f"timelines need the package {package}, which is not installed here: pip install 'dubstage-suite[timelines]'",
        field="timeline",
    )


def other_ending_needed(problem: str) -> InvalidRequestError:
    """Return the error that the format of an output cannot hold a timeline, because of a problem."""
    return InvalidRequestError(f"{problem}: give an output that ends in .otio", field="output", named=True)


def exact_rate(rate: float | Fraction) -> Fraction | None:
    """Return the frame rate that a rounded number such as 23.976 or 29.97 stands for; None: no usual rate is near."""
    if not 0.5 < rate < 1000:
        return None
    whole = round(rate)
    if abs(float(rate) - whole) < 1e-6 * whole:
        return Fraction(whole)
    # 23.98 and 23.976 are both written for 24000/1001.
    if whole % 6 == 0 and abs(float(rate) - whole * 1000 / 1001) < 0.005:
        return Fraction(whole * 1000, 1001)
    return None


def rate_text(rate: Fraction) -> str:
    """Return a frame rate as people write the rate, such as 23.976."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


def encoding_of(content: bytes) -> str:
    """Return the encoding of a text: UTF-16 if the text begins with a byte order mark or with two letters of ASCII in UTF-16,
    otherwise UTF-8.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = [byte == 0 for byte in content[:4]]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8-sig"


def timecode_frames(label: str, rate: Fraction) -> int:
    """Return the number of frames from 00:00:00:00 to a timecode.

    Args:
        label: HH:MM:SS:FF, or HH:MM:SS;FF for drop frame.

    Raises:
        ValueError: the label is no timecode of this rate. The message says why.
    """
    otio = opentimelineio()
    parts = re.fullmatch(r"(\d\d)[:;.](\d\d)[:;.](\d\d)([:;.])(\d{2,3})", label, re.ASCII)
    if parts is None:
        raise ValueError(f"{label[:40]!r} is no timecode HH:MM:SS:FF")
    drop = parts[4] != ":"
    if drop and rate not in DROP_RATES:
        raise ValueError(f"{label} is a drop-frame timecode, which only 29.97 and 59.94 frames per second have")
    text = f"{parts[1]}:{parts[2]}:{parts[3]}{';' if drop else ':'}{parts[5]}"
    try:
        frames = int(otio.opentime.from_timecode(text, float(rate)).to_frames())
    except ValueError as problem:
        raise ValueError(f"{label} is no timecode at {rate_text(rate)} frames per second") from problem
    # OpenTimelineIO counts numbers that drop frame leaves out, and minutes beyond 59.
    if timecode_label(frames, rate, drop=drop) != text:
        raise ValueError(f"{label} does not exist at {rate_text(rate)} frames per second")
    return frames


def timecode_label(frames: int, rate: Fraction, *, drop: bool) -> str:
    """Return the timecode of a number of frames from 00:00:00:00. Timecodes begin again after 24 hours.

    Args:
        frames: number of frames. Negative numbers count back from 24:00:00:00.
        drop: whether numbers are left out as drop frame does. Rates that have no drop frame ignore this.
    """
    otio = opentimelineio()
    drop = drop and rate in DROP_RATES
    if frames < 0:
        # Drop frame leaves 108 numbers out in each hour of 30 frames per second.
        frames %= (24 * 60 * 60 * 10 - drop * 24 * 36) * round(rate) // 10
    time = otio.opentime.RationalTime(frames, float(rate))
    return str(otio.opentime.to_timecode(time, float(rate), drop_frame=drop))


@dataclass(frozen=True, slots=True)
class Timeline:
    """Timeline of an editing program.

    Attributes:
        path: file of the timeline.
        content: the timeline, an `opentimelineio.schema.Timeline`.
        rate: frames per second.
        start: frames from 00:00:00:00 to the timecode of the first frame.
        drop: whether timecodes of the timeline are drop frame.
    """

    path: Path
    content: otio.schema.Timeline
    rate: Fraction
    start: int
    drop: bool

    def label(self, frame: int) -> str:
        """Return the timecode of a frame of the timeline, counted from its first frame."""
        return timecode_label(self.start + frame, self.rate, drop=self.drop)


@dataclass(frozen=True, slots=True)
class Clip:
    """Clip of a track.

    Attributes:
        number: number of the clip among the clips of the track, from 1.
        name: name of the clip; may be empty, and several clips may have the same.
        index: index of the clip among the items of the track.
        record: frames of the timeline that show the clip, from its first frame.
        source: first frame of the clip in the time of its media, frames at the timeline's rate.
        before, after: frames of the media that transitions show before and after `record`.
        media: frames of the media in its own time, as the timeline states them; None: it does not.
        drop: whether source timecodes are drop frame; None: the timeline does not say.
        files: paths, URLs or names of the file of the media, most trusted first.
        reels: reels, and names of the media.
        refused: why the clip cannot be dubbed on exact frames; empty: it can be.
    """

    number: int
    name: str
    index: int
    record: range
    source: int
    before: int
    after: int
    media: range | None
    drop: bool | None
    files: tuple[str, ...]
    reels: tuple[str, ...]
    refused: str

    @property
    def file_names(self) -> frozenset[str]:
        """Names of the file of the media in small letters, without folders and endings."""
        return frozenset(map(short_name, self.files))

    @property
    def reel_names(self) -> frozenset[str]:
        """Reels in small letters; of a clip without any, the name of the clip. Several files may have the same reel in an EDL."""
        return frozenset(map(short_name, self.reels or filter(None, (self.name,))))

    @property
    def title(self) -> str:
        """The clip as messages name it."""
        return f"clip {self.number}{f' ({self.name})' if self.name else ''}"


def wrong_timeline(path: Path | str, problem: str) -> InvalidRequestError:
    """Return the error that a timeline cannot be used."""
    return InvalidRequestError(Text("{path}: {problem}", path=path, problem=problem), field="timeline")


def noted_in(item: Any, key: str = _KEY) -> Mapping[str, Any]:
    """Return what a program has noted under its key in the metadata of a timeline, a track or an item."""
    noted = item.metadata.get(key)
    return dict(noted) if hasattr(noted, "items") else {}


def track_of(timeline: Timeline, name: str | None) -> Any:
    """Return a video track, an `opentimelineio.schema.Track`.

    Args:
        name: name of the track, or its number from 1, counted from the lowest; None: the only one that has clips, apart from
            tracks that `dubstage batch conform` has made.

    Raises:
        InvalidRequestError: there is no such track, or there are several and none is named.
    """
    tracks = list(timeline.content.video_tracks())
    full = [track for track in tracks if any(True for _ in track.find_clips()) and "language" not in noted_in(track)]
    names = ", ".join(track.name or str(number) for number, track in enumerate(tracks, 1))
    if name is None:
        if len(full) == 1:
            return full[0]
        if not full:
            raise wrong_timeline(timeline.path, "no video track has a clip")
        raise InvalidRequestError(
            Text(
                "{path}: several video tracks have clips: give {track} with one of {names}",
                path=timeline.path,
                track=Option("track"),
                names=names,
            ),
            field="track",
        )
    for number, track in enumerate(tracks, 1):
        if name in (track.name, str(number)):
            return track
    raise InvalidRequestError(f"{name[:80]!r}: {timeline.path} has the video tracks {names}", field="track", named=True)


def clips_of(timeline: Timeline, track: Any) -> list[Clip]:
    """Return the clips of a track. Disabled clips are left out."""
    otio = opentimelineio()
    clips: list[Clip] = []
    items = list(track)
    position, number = Fraction(0), 0
    for index, item in enumerate(items):
        if isinstance(item, otio.schema.Transition):
            continue
        try:
            length = frames_of(item.trimmed_range().duration, timeline.rate)
            if not isinstance(item, otio.schema.Gap):
                number += 1
                if item.enabled:
                    clips.append(_clip(timeline, items, index, number, position, length))
        except (otio.exceptions.OTIOError, ValueError, RuntimeError) as problem:
            raise wrong_timeline(timeline.path, f"item {index + 1} of the track has no length: {problem}") from problem
        position += length
    return clips


def frames_of(time: Any, rate: Fraction) -> Fraction:
    """Return a time of OpenTimelineIO in frames of a rate, exactly.

    Raises:
        ValueError: the time is no number, or of more than 11 days of frames.
    """
    if not (0 < time.rate < _MOST_FRAMES and abs(time.value) < _MOST_FRAMES):
        raise ValueError(f"{time.value:.6g} frames at {time.rate:.6g} frames per second")
    own = exact_rate(time.rate) or Fraction(time.rate)
    return Fraction(time.value).limit_denominator(1_000_000) * rate / own


def _clip(timeline: Timeline, items: Sequence[Any], index: int, number: int, position: Fraction, length: Fraction) -> Clip:
    otio = opentimelineio()
    item, rate = items[index], timeline.rate
    plain = isinstance(item, otio.schema.Clip)
    reference = item.media_reference if plain else None
    refused = _refusal(timeline, item, position, length)
    source, media = Fraction(0), None
    if plain:
        source = frames_of(item.trimmed_range().start_time, rate)
        if reference is not None and reference.available_range is not None and not _is_empty(reference):
            begin = int(frames_of(reference.available_range.start_time, rate))
            media = range(begin, begin + int(frames_of(reference.available_range.duration, rate)))
    before, after = _transitions(items, index, rate)
    if not refused and max(source.denominator, before.denominator, after.denominator) > 1:
        refused = f"it begins or ends between two frames of {rate_text(rate)} frames per second"
    files, reels = _names(item, reference)
    first = int(position)
    return Clip(
        number=number,
        name=item.name or "",
        index=index,
        record=range(first, first + max(int(length), 0)),
        source=int(source),
        before=int(before),
        after=int(after),
        media=media,
        drop=noted_in(item).get("drop"),
        files=files,
        reels=reels,
        refused=refused,
    )


def _is_empty(reference: Any) -> bool:
    return bool(reference.available_range.duration.value <= 0)


def _refusal(timeline: Timeline, item: Any, position: Fraction, length: Fraction) -> str:
    """Return why a clip cannot be dubbed on exact frames; empty: it can be."""
    otio = opentimelineio()
    rate = rate_text(timeline.rate)
    if noted := noted_in(item).get("refused"):
        return str(noted)
    if not isinstance(item, otio.schema.Clip):
        return "it is a nested sequence: put the clips of the sequence on the track"
    stated = item.trimmed_range().start_time.rate
    own = exact_rate(stated)
    if own != timeline.rate:
        has = rate_text(own) if own is not None else f"{stated:.6g}"
        return f"it has {has} frames per second, and the timeline {rate}: convert its media to one rate"
    if effect := next(filter(None, map(_speed_change, item.effects)), ""):
        return effect
    if length.denominator > 1 or position.denominator > 1 or length <= 0:
        return f"it begins or ends between two frames of {rate} frames per second"
    kinds = {
        otio.schema.ImageSequenceReference: "its media is a sequence of pictures: convert the sequence to a video",
        otio.schema.GeneratorReference: "it is made by the editing program",
    }
    return next((reason for kind, reason in kinds.items() if isinstance(item.media_reference, kind)), "")


def _speed_change(effect: Any) -> str:
    """Return how an effect changes the speed of its clip, as a reason to refuse the clip; empty: it does not."""
    otio = opentimelineio()
    if isinstance(effect, otio.schema.FreezeFrame):
        return "it is a freeze frame: render the freeze frame to a file first"
    if isinstance(effect, otio.schema.LinearTimeWarp):
        changed = abs(effect.time_scalar - 1) > 1e-6
        return f"its speed is {100 * effect.time_scalar:.6g} %: render the clip at its new speed to a file first" if changed else ""
    if isinstance(effect, otio.schema.TimeEffect):
        return f"it has the time effect {effect.effect_name or effect.name!r}: render the clip to a file first"
    return ""


def _transitions(items: Sequence[Any], index: int, rate: Fraction) -> tuple[Fraction, Fraction]:
    """Return the frames of the media that transitions show before and after the cut range of an item."""
    otio = opentimelineio()
    before = after = Fraction(0)
    if index and isinstance(items[index - 1], otio.schema.Transition):
        before = frames_of(items[index - 1].in_offset, rate)
    if index + 1 < len(items) and isinstance(items[index + 1], otio.schema.Transition):
        after = frames_of(items[index + 1].out_offset, rate)
    return before, after


def _names(item: Any, reference: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a clip's files, and its reels."""
    noted, cmx = noted_in(item), noted_in(item, "cmx_3600")
    files = [getattr(reference, "target_url", None), noted.get("source_file")]
    reels = [noted.get("reel"), cmx.get("reel"), getattr(reference, "name", None)]
    return _texts(files), _texts(reels)


def _texts(names: Sequence[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for name in names if name))


def path_of_url(url: str) -> str:
    """Return the path of a `file:` URL or of a plain path, and the path part of another URL."""
    if re.match(r"[A-Za-z]:[\\/]", url):
        return url.replace("\\", "/")
    try:
        parts = urlparse(url)
    except ValueError:  # brackets that are no address of IPv6: the text is no URL
        return url.replace("\\", "/")
    return unquote(parts.path) if parts.scheme else url.replace("\\", "/")


def file_name(url: str) -> str:
    """Return the name of the file of a path or URL, without its folders."""
    return PurePosixPath(path_of_url(url)).name


def short_name(url: str) -> str:
    """Return the name of the file of a path or URL in small letters, without its folders and its ending.

    An entity reference of an asset manager comes back as it is: its last part may be `plate` for every shot.
    """
    if has_unknown_protocol(url):
        return url
    return same_name(PurePosixPath(file_name(url)).stem)


def same_name(name: str) -> str:
    """Return the form of a file's name by which names are compared: small letters, and letters with accents as one character.

    macOS and programs on macOS write an accent as a character of its own (NFD), other systems do not (NFC).
    """
    return unicodedata.normalize("NFC", name).lower()


def present_path(path: Path) -> Path:
    """Return a path as the file system has it: a path that is not there may be there with its accents written otherwise (NFC, NFD).

    Returns:
        The path of the file that is there; otherwise the path as it was given.
    """
    present = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        forms = dict.fromkeys([part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part)])
        there = next((present / form for form in forms if os.path.lexists(present / form)), None)
        if there is None:
            return path
        present = there
    return present
