"""Edit decision lists (CMX 3600): text to OpenTimelineIO and back, exact to the frame.

otio-cmx3600-adapter does not read `FCM: DROP FRAME`, does not see a speed change that keeps the length, refuses a whole list for
one event, and writes drop-frame timecodes at 29.97 frames per second whatever the list says. So dubstage reads and writes lists
itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from gateway.studio.timeline import (
    Timeline,
    encoding_of,
    exact_rate,
    noted_in,
    opentimelineio,
    other_ending_needed,
    path_of_url,
    rate_text,
    timecode_frames,
    timecode_label,
)
from services.common.errors import InvalidRequestError

MOST_EVENTS: Final = 999
"""Most events of a list: event numbers have three digits."""
_MOST_SPEED: Final = 1000
"""Speed of a clip, as a factor, that a line M2 has no room for."""
_TIMECODE: Final = r"(\d\d[:;.]\d\d[:;.]\d\d[:;.]\d{2,3})"
_EVENT: Final = re.compile(
    r"(\d{1,6})\s+(\S+)\s+(\S+)\s+(C|D|W\d{3}|K(?: ?[BO])?)\s*(\d{1,4})?\s+" + r"\s+".join([_TIMECODE] * 4), re.ASCII
)
_SPEED: Final = re.compile(r"M2\s+(\S+)\s+([+-]?\d+(?:\.\d+)?)\s+\S+", re.ASCII)
_NOTE: Final = re.compile(
    r"\*\s*(FROM CLIP NAME|TO CLIP NAME|SOURCE FILE|FROM CLIP|FROM FILE|TO CLIP|TO FILE)\s*:\s*(.*)", re.IGNORECASE
)
_BLACK: Final = ("BL", "BLACK")
_BARS: Final = "BARS"
_UNKNOWN_REEL: Final = "AX"
_ROUNDED_SPEED: Final = 0.006
"""Most distance of a speed from 1, as a factor, that a line M2 may have for a clip of unchanged speed: lists round 29.97 frames per
second to 29.9 or 30."""


@dataclass(slots=True)
class _Event:
    """One line of a list with its comments. Times are frames; `transition` is the length of a dissolve or wipe, frames."""

    number: str
    reel: str
    channels: str
    kind: str
    transition: int
    source: range
    record: range
    drop: bool
    speed: float | None = None
    notes: dict[str, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def is_video(self) -> bool:
        return self.channels == "B" or "V" in self.channels

    @property
    def track(self) -> str:
        """Name of the video track: V1, or V2 and more as the list names them."""
        number = re.search(r"V(\d+)", self.channels)
        return f"V{number[1]}" if number else "V1"


def read_edl(content: bytes, rate: Fraction, shown_name: str) -> Any:
    """Return the timeline of a list, an `opentimelineio.schema.Timeline`. Events that cannot be dubbed exactly carry the reason.

    Args:
        content: bytes of the file: UTF-8, UTF-16, otherwise Latin-1. Lists that are sorted by source are read too (C mode).
        rate: frames per second of the list.
        shown_name: name of the file in messages.

    Raises:
        InvalidRequestError: the list has no video event, a line is no event, a timecode does not exist, or events overlap.
    """
    otio = opentimelineio()
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    title, events, drop = _events(text, rate, shown_name)
    # Sound may begin before the pictures, and scripts count seconds from the first frame of the programme.
    start = min((event.record.start for event in events), default=0)
    events = _joined_keys([event for event in events if event.is_video])
    if not events:
        raise InvalidRequestError(f"{shown_name}: the list has no video event", field="timeline")
    timeline = otio.schema.Timeline(title, global_start_time=otio.opentime.RationalTime(start, float(rate)))
    timeline.metadata["dubstage"] = {"drop": drop}
    for name in sorted({event.track for event in events}):
        track = otio.schema.Track(name, kind=otio.schema.TrackKind.Video)
        _fill(track, [event for event in events if event.track == name], start, rate, shown_name)
        timeline.tracks.append(track)
    return timeline


def _events(text: str, rate: Fraction, shown_name: str) -> tuple[str, list[_Event], bool]:
    """Return the title, the events, and whether record timecodes are drop frame."""
    title, events, drop_mode = "", [], False
    drops: list[bool] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.upper().startswith("TITLE:"):
            title = line[6:].strip()
        elif line.upper().startswith("FCM:"):
            drop_mode = "NON" not in line.upper()
        elif fields := _EVENT.fullmatch(line):
            try:
                event, drop = _event(fields, rate, drop_mode)
            except ValueError as problem:
                raise InvalidRequestError(f"{shown_name}:{number}: event {fields[1]}: {problem}", field="timeline") from None
            events.append(event)
            drops.append(drop)
        elif re.match(r"\d", line):
            raise InvalidRequestError(
                f"{shown_name}:{number}: no event of CMX 3600: {line[:80]!r}; an event has a number, a reel, a channel, C, D or W, "
                "and four timecodes",
                field="timeline",
            )
        elif events and (speed := _SPEED.match(line)):
            _set_speed(events, speed[1], float(speed[2]), rate)
        elif events and (note := _NOTE.match(line)):
            events[-1].notes[note[1].upper()] = note[2].strip()
    for event in events:
        _check_event(event)
    # The lines of a dissolve have one number, and stay together.
    groups = [list(group) for _, group in itertools.groupby(events, lambda event: event.number)]
    groups.sort(key=lambda group: group[0].record.start)
    return title, list(itertools.chain.from_iterable(groups)), any(drops)


def _event(fields: re.Match[str], rate: Fraction, drop_mode: bool) -> tuple[_Event, bool]:
    """Return the event of a line, and whether its record timecodes are drop frame."""
    labels = list(fields.groups()[5:])
    # Some programs write drop-frame timecodes with colons, and say so only in the line FCM.
    if drop_mode and not any(_is_drop(label) for label in labels):
        labels = [f"{label[:8]};{label[9:]}" for label in labels]
    source_in, source_out, record_in, record_out = (timecode_frames(label, rate) for label in labels)
    event = _Event(
        number=fields[1],
        reel=fields[2],
        channels=fields[3].upper(),
        kind=fields[4].replace(" ", ""),
        transition=int(fields[5] or 0) if fields[4] != "C" else 0,
        source=range(source_in, source_out),
        record=range(record_in, record_out),
        drop=_is_drop(labels[0]),
    )
    return event, _is_drop(labels[2])


def _is_drop(label: str) -> bool:
    return label[8] != ":"


def _set_speed(events: Sequence[_Event], reel: str, speed: float, rate: Fraction) -> None:
    """Note the speed of an M2 line in the event that the line belongs to: the last one, or the one before of the same reel."""
    same = [event for event in events if event.number == events[-1].number and event.reel[:8] == reel[:8]]
    (same or events)[-1].speed = speed / round(rate)


def _check_event(event: _Event) -> None:
    """Note why an event cannot be dubbed exactly, if the list says so."""
    source, record = len(event.source), len(event.record)
    if event.kind.startswith("K"):
        event.refused = f"it is a key ({event.kind}): render the key to a file first"
    elif source == record or event.reel in _BLACK:
        return
    elif event.speed is None:
        event.refused = f"its source has {source} frames, its place in the timeline {record}, and no line M2 says its speed"
    elif abs(event.speed - 1) <= _ROUNDED_SPEED and record:
        # A line M2 has one decimal: 100.2 % of 24 frames per second is written 024.0.
        event.speed = source / record
        event.refused = (
            f"its source has {source} frames and its place in the timeline {record}, so its speed is {100 * event.speed:.6g} %: "
            "render the clip at its new speed to a file first"
        )


def _joined_keys(events: Sequence[_Event]) -> list[_Event]:
    """Return events with the lines of a key (background and foreground) as one event, which lasts as long as both."""
    joined: list[_Event] = []
    for event in events:
        last = joined[-1] if joined else event
        if (event.kind[0], last.kind[0]) == ("K", "K") and (last.number, last.track) == (event.number, event.track) and joined:
            last.record = range(min(last.record.start, event.record.start), max(last.record.stop, event.record.stop))
            last.notes |= event.notes
        else:
            joined.append(event)
    return joined


def _fill(track: Any, events: Sequence[_Event], start: int, rate: Fraction, shown_name: str) -> None:
    """Append the events of a track, with gaps and transitions."""
    otio = opentimelineio()
    end = start
    for number, event in enumerate(events):
        following = events[number + 1] if number + 1 < len(events) else None
        if not len(event.record):
            # The first line of a dissolve: the clip that the dissolve begins with, with no frame of its own.
            if following is None or following.number != event.number:
                raise InvalidRequestError(f"{shown_name}: event {event.number} has no frame", field="timeline")
            continue
        if event.record.start < end:
            raise InvalidRequestError(
                f"{shown_name}: event {event.number} begins before the event before it ends", field="timeline"
            )
        if event.record.start > end:
            track.append(_gap(event.record.start - end, rate))
        if event.transition:
            kind = "SMPTE_Dissolve" if event.kind == "D" else "Custom_Transition"
            zero, length = (otio.opentime.RationalTime(frames, float(rate)) for frames in (0, event.transition))
            if not len(track):
                track.append(_gap(0, rate))
            noted = {"cmx_3600": {"kind": event.kind}}
            track.append(otio.schema.Transition(transition_type=kind, in_offset=zero, out_offset=length, metadata=noted))
        track.append(_gap(len(event.record), rate) if event.reel in _BLACK else _clip(event, rate))
        end = event.record.stop


def _gap(frames: int, rate: Fraction) -> Any:
    otio = opentimelineio()
    return otio.schema.Gap(duration=otio.opentime.RationalTime(frames, float(rate)))


def _clip(event: _Event, rate: Fraction) -> Any:
    otio = opentimelineio()
    side = "TO" if event.transition else "FROM"
    notes = event.notes
    name = notes.get(f"{side} CLIP NAME") or notes.get("FROM CLIP NAME") or ""
    url = next((notes[key] for key in (f"{side} CLIP", f"{side} FILE") if notes.get(key)), "")
    reel = "" if event.reel == _UNKNOWN_REEL else event.reel
    source = [otio.opentime.RationalTime(value, float(rate)) for value in (event.source.start, len(event.record))]
    reference: Any = otio.schema.MissingReference(name=reel)
    if event.reel == _BARS:
        reference = otio.schema.GeneratorReference(generator_kind="SMPTEBars")
    elif url:
        reference = otio.schema.ExternalReference(target_url=url)
    noted = {"event": event.number, "reel": reel, "source_file": notes.get("SOURCE FILE", ""), "drop": event.drop}
    if event.refused:
        noted["refused"] = event.refused
    if event.kind.startswith("K"):
        noted["key"] = event.kind
    clip = otio.schema.Clip(
        name or url or reel, reference, otio.opentime.TimeRange(*source), metadata={"dubstage": noted, "cmx_3600": {"reel": reel}}
    )
    if event.speed is not None and (abs(event.speed - 1) > _ROUNDED_SPEED or len(event.source) != len(event.record)):
        clip.effects.append(otio.schema.FreezeFrame() if event.speed == 0 else otio.schema.LinearTimeWarp(time_scalar=event.speed))
    return clip


@dataclass(frozen=True, slots=True)
class _Placed:
    """An item of a track as an event. `source` is the first frame of its media; dissolves begin with their event.

    Attributes:
        item: the clip, or a gap that a dissolve joins to a clip.
        record: frames of the timeline from 00:00:00:00.
        source: first frame of the media.
        transition: the transition before the item; None: a cut.
        length: frames of the transition.
    """

    item: Any
    record: range
    source: int
    transition: Any
    length: int


def edl_text(timeline: Timeline, track: Any) -> str:
    """Return a track as a list. Markers of clips are locators at their frames of the timeline.

    Args:
        track: the track, an `opentimelineio.schema.Track`.

    Raises:
        InvalidRequestError: the track has too many events, an item that a list cannot hold, or another frame rate.
    """
    otio = opentimelineio()
    lines = [f"TITLE: {_plain(timeline.content.name or timeline.path.stem)}"]
    lines.append(f"FCM: {'DROP FRAME' if timeline.drop else 'NON-DROP FRAME'}")
    number = 0
    before: _Placed | None = None
    for placed in _placed(timeline, list(track)):
        if not isinstance(placed.item, otio.schema.Gap) or placed.transition is not None:
            number += 1
            lines += _event_lines(timeline, number, placed, before)
        before = placed
    if number > MOST_EVENTS:
        raise other_ending_needed(f"an EDL has at most {MOST_EVENTS} events, and this track has {number}")
    return "\n".join(lines) + "\n"


def _placed(timeline: Timeline, items: Sequence[Any]) -> list[_Placed]:
    """Return the items of a track as events. A dissolve begins with the event of its second clip, and a disabled item is a gap."""
    otio = opentimelineio()
    events: list[_Placed] = []
    position = timeline.start
    for index, item in enumerate(items):
        if isinstance(item, otio.schema.Transition):
            continue
        shown = item if item.enabled else otio.schema.Gap(duration=item.trimmed_range().duration)
        if not isinstance(shown, otio.schema.Clip | otio.schema.Gap):
            raise other_ending_needed(f"an EDL cannot hold {shown.name or 'a nested sequence'}")
        if "key" in noted_in(shown):
            raise other_ending_needed(
                f"{shown.name or 'a clip'} is the background of a key, which dubstage does not write as an EDL"
            )
        before, after = (
            items[near] if 0 <= near < len(items) and isinstance(items[near], otio.schema.Transition) else None
            for near in (index - 1, index + 1)
        )
        lead = _frames(timeline, before.in_offset) if before is not None else 0
        cut = _frames(timeline, after.in_offset) if after is not None else 0
        end = position + _frames(timeline, shown.trimmed_range().duration)
        length = lead + _frames(timeline, before.out_offset) if before is not None else 0
        # A reversed clip plays its media from the end: its first frame in the list is the last one that it shows.
        scalar = _scalar(shown)
        early = round((lead if scalar > 0 else cut) * scalar)
        source = 0 if isinstance(shown, otio.schema.Gap) else _frames(timeline, shown.trimmed_range().start_time) - early
        events.append(_Placed(shown, range(position - lead, max(position - lead, end - cut)), source, before, length))
        position = end
    return events


def _frames(timeline: Timeline, time: Any) -> int:
    if exact_rate(time.rate) != timeline.rate or time.value != int(time.value):
        raise other_ending_needed(
            f"an EDL has one frame rate, {rate_text(timeline.rate)}, and an item has {time.rate:.6g} or lies between two frames"
        )
    return int(time.value)


def _event_lines(timeline: Timeline, number: int, placed: _Placed, before: _Placed | None) -> list[str]:
    """Return the lines of an event."""
    otio = opentimelineio()
    item, record, lines = placed.item, placed.record, []
    begin, end = (timecode_label(frame, timeline.rate, drop=timeline.drop) for frame in (record.start, record.stop))
    kind, names = "C      ", [("FROM", item)]
    if placed.transition is not None:
        code = str(noted_in(placed.transition, "cmx_3600").get("kind", "D"))
        kind = f"{code} {placed.length:03d}".ljust(7)
        old = before.item if before is not None else None
        left = before.source + round(len(before.record) * max(_scalar(old), 0)) if before is not None and _reel(old) != "BL" else 0
        label = _label(timeline, old, left)
        lines.append(_line(number, _reel(old), "C      ", label, label, begin, begin))
        names = [("FROM", old), ("TO", item)]
    warp, scalar = _warp(item), _scalar(item)
    played = 1 if isinstance(warp, otio.schema.FreezeFrame) else round(len(record) * abs(scalar))
    labels = [_label(timeline, item, frame) for frame in (placed.source, placed.source + played)]
    lines.append(_line(number, _reel(item), kind, *labels, begin, end))
    if warp is not None:
        lines.append(f"M2   {_reel(item):<8} {scalar * round(timeline.rate):05.1f} {' ' * 15}{labels[0]}")
    lines += [f"* {side} CLIP NAME:  {_plain(one.name)}" for side, one in names if one is not None and one.name]
    if isinstance(item, otio.schema.Gap):
        return lines
    url = getattr(item.media_reference, "target_url", None)
    if source_file := path_of_url(url) if url else noted_in(item).get("source_file"):
        lines.append(f"* SOURCE FILE: {_plain(source_file)}")
    for marker in item.markers:
        at = record.start + _frames(timeline, marker.marked_range.start_time) - placed.source
        label = timecode_label(at, timeline.rate, drop=timeline.drop)
        lines.append(f"* LOC: {label} {marker.color or 'RED':<7} {_plain(marker.name)}")
    return lines


def _warp(item: Any) -> Any:
    """Return the effect that changes the speed of an item; None: there is none."""
    otio = opentimelineio()
    return next((effect for effect in getattr(item, "effects", ()) if isinstance(effect, otio.schema.LinearTimeWarp)), None)


def _scalar(item: Any) -> float:
    """Return the speed of an item as a factor; 0: a freeze frame; negative: reversed."""
    otio = opentimelineio()
    warp = _warp(item)
    scalar = 0.0 if isinstance(warp, otio.schema.FreezeFrame) else 1.0 if warp is None else warp.time_scalar
    if not abs(scalar) < _MOST_SPEED:
        raise other_ending_needed(f"an EDL cannot hold the speed {100 * scalar:.3g} %")
    return float(scalar)


def _line(number: int, reel: str, kind: str, *labels: str) -> str:
    return f"{number:03d}  {reel:<8} V     {kind}  {' '.join(labels)}"


def _label(timeline: Timeline, item: Any, frame: int) -> str:
    """Return the source timecode of a frame of an item's media."""
    noted = noted_in(item).get("drop") if item is not None else None
    return timecode_label(max(frame, 0), timeline.rate, drop=timeline.drop if noted is None else bool(noted))


def _reel(item: Any) -> str:
    otio = opentimelineio()
    if item is None or isinstance(item, otio.schema.Gap):
        return "BL"
    reel = noted_in(item).get("reel") or noted_in(item, "cmx_3600").get("reel") or _UNKNOWN_REEL
    return re.sub(r"[^A-Za-z0-9_.-]", "_", str(reel))


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())
