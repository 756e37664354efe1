"""Final Cut Pro X XML: text to OpenTimelineIO and back, exact to the frame.

otio-fcpx-xml-adapter takes 29.97 frames per second for 29 and rounds the fractions of FCPXML down, so that one time in twenty is a
frame early. FCPXML holds exact fractions of a second, so dubstage reads and writes them itself: storylines, clips of assets, gaps,
transitions, markers. What else a timeline may hold is refused clip by clip. Sound lanes are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from gateway.studio.timeline import Timeline, exact_rate, noted_in, opentimelineio, other_ending_needed, rate_text
from services.common.errors import InvalidRequestError

_VERSION: Final = "1.8"
_CLIPS: Final = ("asset-clip", "clip", "video", "ref-clip", "sync-clip", "mc-clip", "title", "audition")
_OTHERS: Final = {
    "ref-clip": "a compound clip: break the clip apart",
    "sync-clip": "a synchronised clip: break the clip apart",
    "mc-clip": "a multicam clip: flatten the clip",
    "audition": "an audition: finalise the audition",
    "title": "a title and has no media",
}
_GAP_START: Final = Fraction(3600)
"""Time at which Final Cut begins the own time of gaps, seconds."""
_Placed = tuple[Fraction, Fraction, ElementTree.Element]
"""Begin and end on the timeline, seconds from 0 of its timecodes, and the element."""


class _Document:
    """Reads one document. `rate` is the frame rate of the sequence."""

    def __init__(self, root: ElementTree.Element, sequence: ElementTree.Element, shown_name: str) -> None:
        self._shown_name = shown_name
        self._resources = {item.get("id", ""): item for item in root.iterfind("./resources/*")}
        rate = self._format_rate(sequence.get("format", ""))
        if rate is None:
            raise self.wrong("the format of the sequence has no frameDuration")
        self.rate = rate
        self.drop = sequence.get("tcFormat") == "DF"

    def wrong(self, problem: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self._shown_name}: {problem}", field="timeline")

    def _format_rate(self, name: str) -> Fraction | None:
        resource = self._resources.get(name)
        duration = resource.get("frameDuration") if resource is not None else None
        seconds = self.seconds(duration)
        return exact_rate(1 / seconds) if seconds else None

    def seconds(self, text: str | None) -> Fraction:
        """Return a time such as `1001/24000s`, seconds; no text: 0."""
        if not text:
            return Fraction(0)
        parts = re.fullmatch(r"(-?\d{1,18})(?:/(\d{1,18}))?s", text, re.ASCII)
        if parts is None or not int(parts[2] or 1):
            raise self.wrong(f"{text[:40]!r} is no time; FCPXML writes 1001/24000s")
        return Fraction(int(parts[1]), int(parts[2] or 1))

    def time(self, seconds: Fraction) -> Any:
        """Return a time as OpenTimelineIO holds times. Whole frames stay whole."""
        frames = seconds * self.rate
        return opentimelineio().opentime.RationalTime(float(frames), float(self.rate))

    def span(self, start: Fraction, duration: Fraction) -> Any:
        return opentimelineio().opentime.TimeRange(self.time(start), self.time(duration))

    def clip(self, element: ElementTree.Element) -> Any:
        """Return a clip of the timeline. A clip that cannot be dubbed exactly carries the reason."""
        otio = opentimelineio()
        source, asset = self._source(element)
        refused = ""
        if element.tag in _OTHERS:
            refused = f"it is {_OTHERS[element.tag]}"
        elif element.find("timeMap") is not None:
            refused = "it has a speed change: render the clip to a file first"
        elif asset is None:
            refused = "it has no media"
        else:
            own = self._format_rate(asset.get("format", ""))
            if own is not None and own != self.rate:
                refused = f"its media has {rate_text(own)} frames per second, and the timeline {rate_text(self.rate)}"
        reference: Any = otio.schema.MissingReference()
        if asset is not None:
            replaced = asset.find("media-rep")
            url = asset.get("src") or (replaced.get("src") if replaced is not None else None) or ""
            span = self.span(self.seconds(asset.get("start")), self.seconds(asset.get("duration")))
            reference = otio.schema.ExternalReference(target_url=url, available_range=span)
            reference.name = asset.get("name") or ""
        noted: dict[str, Any] = {"drop": element.get("tcFormat") == "DF"} if element.get("tcFormat") else {}
        if refused:
            noted["refused"] = refused
        clip = otio.schema.Clip(
            element.get("name") or "",
            reference,
            self.span(source, self.duration_of(element)),
            metadata={"dubstage": noted},
        )
        clip.enabled = element.get("enabled") != "0"
        for marker in element.iterfind("marker"):
            span = self.span(self.seconds(marker.get("start")), self.seconds(marker.get("duration")))
            clip.markers.append(otio.schema.Marker(name=marker.get("value") or "", marked_range=span))
        return clip

    def _source(self, element: ElementTree.Element) -> tuple[Fraction, ElementTree.Element | None]:
        """Return the begin of a clip in the time of its media, seconds, and its asset; None: it has none."""
        if element.tag == "clip":
            inner = element.find("video")
            asset = self._asset(inner)
            if inner is None:
                return self.seconds(element.get("start")), None
            start = self.start_of(inner, asset)
            return self.seconds(element.get("start")) - self.seconds(inner.get("offset")) + start, asset
        asset = self._asset(element)
        return self.start_of(element, asset), asset

    def _asset(self, element: ElementTree.Element | None) -> ElementTree.Element | None:
        asset = self._resources.get(element.get("ref", "")) if element is not None else None
        return asset if asset is not None and asset.tag == "asset" else None

    def start_of(self, element: ElementTree.Element, asset: ElementTree.Element | None) -> Fraction:
        """Return the begin of an element's own time, seconds."""
        if element.get("start") is None and asset is not None:
            return self.seconds(asset.get("start"))
        return self.seconds(element.get("start"))

    def duration_of(self, element: ElementTree.Element) -> Fraction:
        """Return the duration of an element, seconds. Without one, a clip shows its asset or its compound clip to the end.

        Raises:
            InvalidRequestError: the document does not say the duration.
        """
        stated = element
        if element.tag == "audition":
            # The first clip of an audition is the active one.
            stated = next((child for child in element if child.tag in _CLIPS), element)
        if (text := stated.get("duration")) is not None:
            return self.seconds(text)
        resource = self._resources.get(stated.get("ref", ""))
        media = resource.find("sequence") if resource is not None and resource.tag == "media" else resource
        whole = media.get("duration") if media is not None else None
        if media is None or whole is None:
            raise self.wrong(
                f"{stated.get('name') or stated.tag!r} has no duration, and no asset that has one: export the project again"
            )
        begin = self.seconds(media.get("start") or media.get("tcStart"))
        start = begin if stated.get("start") is None else self.seconds(stated.get("start"))
        return begin + self.seconds(whole) - start

    def own_start(self, element: ElementTree.Element) -> Fraction:
        """Return the begin of the time in which an element places the clips that are connected to it, seconds."""
        return self.start_of(element, self._asset(element) if element.tag in ("asset-clip", "video") else None)


def read_fcpxml(content: bytes, shown_name: str) -> Any:
    """Return the timeline of a document, an `opentimelineio.schema.Timeline`.

    Args:
        shown_name: name of the file in messages.

    Raises:
        InvalidRequestError: the text is no FCPXML with one sequence, or clips of a lane overlap.
    """
    otio = opentimelineio()
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        # LookupError: Python knows no encoding of text by the name in the first line.
        raise InvalidRequestError(f"{shown_name}: not XML: {problem}", field="timeline") from problem
    projects = list(root.iter("project"))
    sequence = projects[0].find("sequence") if len(projects) == 1 else None
    spine = sequence.find("spine") if sequence is not None else None
    if root.tag != "fcpxml" or sequence is None or spine is None:
        raise InvalidRequestError(
            f"{shown_name}: holds {len(projects)} projects with a sequence: export one project", field="timeline"
        )
    document = _Document(root, sequence, shown_name)
    start = document.seconds(sequence.get("tcStart"))
    lanes: dict[int, list[_Placed]] = {}
    try:
        _collect(document, spine, start, 0, lanes)
    except RecursionError as problem:
        raise document.wrong("its storylines are nested too deeply") from problem
    timeline = otio.schema.Timeline(projects[0].get("name") or "", global_start_time=document.time(start))
    timeline.metadata["dubstage"] = {"drop": document.drop}
    for lane in sorted(lanes):
        track = otio.schema.Track(f"V{lane + 1}" if lane >= 0 else f"lane {lane}", kind=otio.schema.TrackKind.Video)
        _fill(document, track, sorted(lanes[lane], key=lambda placed: (placed[0], placed[2].tag == "transition")), start)
        timeline.tracks.append(track)
    return timeline


def _collect(document: _Document, spine: ElementTree.Element, begin: Fraction, lane: int, lanes: dict[int, list[_Placed]]) -> None:
    """Collect the items of a storyline that begins at a time, and the clips that are connected to them, by lane."""
    end = begin
    for element in spine:
        if element.tag not in (*_CLIPS, "gap", "transition"):
            continue
        offset = element.get("offset")
        # Offsets in the first storyline are timecodes; offsets in another storyline count from the begin of that storyline.
        at = end if offset is None else document.seconds(offset) + (begin if lane else 0)
        duration = document.duration_of(element)
        if element.tag != "transition":
            end = at + duration
        if element.tag != "gap":
            lanes.setdefault(lane, []).append((at, at + duration, element))
        for child in element:
            number = int(child.get("lane", "0")) if re.fullmatch(r"-?\d{1,4}", child.get("lane", "0")) else 0
            if number <= 0:
                continue
            above = at + document.seconds(child.get("offset")) - document.own_start(element)
            if child.tag == "spine":
                _collect(document, child, above, number, lanes)
            elif child.tag in _CLIPS:
                lanes.setdefault(number, []).append((above, above + document.duration_of(child), child))


def _fill(document: _Document, track: Any, placed: list[_Placed], start: Fraction) -> None:
    """Append the items of a lane, with gaps and transitions."""
    otio = opentimelineio()
    transitions = [one for one in placed if one[2].tag == "transition"]
    end = start
    for begin, stop, element in placed:
        if element.tag == "transition":
            continue
        if begin < end:
            raise document.wrong(f"{element.get('name') or element.tag!r} begins before the clip before it ends")
        if begin > end:
            _dissolve(document, track, transitions, end)
            track.append(otio.schema.Gap(duration=document.time(begin - end)))
        _dissolve(document, track, transitions, begin)
        track.append(document.clip(element))
        end = stop
    _dissolve(document, track, transitions, end)


def _dissolve(document: _Document, track: Any, transitions: list[_Placed], cut: Fraction) -> None:
    """Append the transition over a cut, if there is one that is not on the track yet."""
    otio = opentimelineio()
    for one in transitions:
        begin, end, element = one
        if begin <= cut <= end:
            if not len(track):
                track.append(otio.schema.Gap(duration=document.time(Fraction(0))))
            track.append(
                otio.schema.Transition(
                    name=element.get("name") or "",
                    transition_type="SMPTE_Dissolve",
                    in_offset=document.time(cut - begin),
                    out_offset=document.time(end - cut),
                )
            )
            transitions.remove(one)
            return


class _Writer:
    """Writes one document."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._root = ElementTree.Element("fcpxml", version=_VERSION)
        self._resources = ElementTree.SubElement(self._root, "resources")
        ElementTree.SubElement(self._resources, "format", id="r1", frameDuration=self._text(1))
        self._assets: dict[tuple[str, int, int], str] = {}

    def _text(self, frames: int) -> str:
        seconds = frames / self._timeline.rate
        return f"{seconds.numerator}/{seconds.denominator}s" if seconds.denominator > 1 else f"{seconds.numerator}s"

    def _frames(self, time: Any) -> int:
        if exact_rate(time.rate) != self._timeline.rate or time.value != int(time.value):
            raise other_ending_needed(
                f"an item has {time.rate:.6g} frames per second or lies between two frames, and the timeline has "
                f"{rate_text(self._timeline.rate)}"
            )
        return int(time.value)

    def document(self) -> str:
        """Return the text of the document."""
        timeline, tracks = self._timeline, list(self._timeline.content.video_tracks())
        project = ElementTree.SubElement(
            ElementTree.SubElement(self._root, "event", name=timeline.path.stem),
            "project",
            name=timeline.content.name or timeline.path.stem,
        )
        total = max(sum(self._frames(item.trimmed_range().duration) for item in _items(track)) for track in tracks)
        sequence = ElementTree.SubElement(
            project,
            "sequence",
            format="r1",
            duration=self._text(total),
            tcStart=self._text(timeline.start),
            tcFormat="DF" if timeline.drop else "NDF",
        )
        spine = ElementTree.SubElement(sequence, "spine")
        base = self._storyline(spine, list(tracks[0]), timeline.start)
        if base < timeline.start + total:
            self._gap(spine, base, timeline.start + total - base)
        for lane, track in enumerate(tracks[1:], 1):
            self._connect(spine, track, lane)
        for element in self._root.iter("asset-clip"):
            # Markers come behind connected clips.
            for marker in element.findall("marker"):
                element.remove(marker)
                element.append(marker)
        ElementTree.indent(self._root)
        text = ElementTree.tostring(self._root, encoding="unicode")
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{text}\n'

    def _gap(self, spine: ElementTree.Element, offset: int, frames: int) -> None:
        begin = round(_GAP_START * self._timeline.rate)
        ElementTree.SubElement(
            spine, "gap", name="Gap", offset=self._text(offset), start=self._text(begin), duration=self._text(frames)
        )

    def _storyline(self, spine: ElementTree.Element, items: list[Any], offset: int, role: str = "") -> int:
        """Append items to a storyline whose first item begins at an offset, frames, and return the end."""
        otio = opentimelineio()
        for item in items:
            if isinstance(item, otio.schema.Transition):
                before, after = self._frames(item.in_offset), self._frames(item.out_offset)
                ElementTree.SubElement(
                    spine,
                    "transition",
                    name="Cross Dissolve",
                    offset=self._text(offset - before),
                    duration=self._text(before + after),
                )
                continue
            frames = self._frames(item.trimmed_range().duration)
            if isinstance(item, otio.schema.Gap):
                if frames:
                    self._gap(spine, offset, frames)
            else:
                self._clip(spine, item, offset, frames, role)
            offset += frames
        return offset

    def _clip(self, spine: ElementTree.Element, item: Any, offset: int, frames: int, role: str) -> None:
        otio = opentimelineio()
        if not isinstance(item, otio.schema.Clip) or any(isinstance(one, otio.schema.TimeEffect) for one in item.effects):
            kind = "a speed change" if isinstance(item, otio.schema.Clip) else "a nested sequence"
            raise other_ending_needed(f"{item.name or 'an item'} is {kind}, which dubstage does not write as FCPXML")
        start = self._frames(item.trimmed_range().start_time)
        element = ElementTree.SubElement(
            spine,
            "asset-clip",
            name=item.name or "",
            ref=self._asset(item, start, frames),
            offset=self._text(offset),
            start=self._text(start),
            duration=self._text(frames),
            tcFormat="DF" if noted_in(item).get("drop", self._timeline.drop) else "NDF",
        )
        if role:
            element.set("videoRole", role)
        if not (item.enabled and item.parent().enabled):
            element.set("enabled", "0")
        for marker in item.markers:
            begin = self._text(self._frames(marker.marked_range.start_time))
            child = ElementTree.SubElement(element, "marker", start=begin, duration=self._text(1), value=marker.name or "")
            if marker.color in (otio.schema.MarkerColor.RED, otio.schema.MarkerColor.GREEN):
                # Final Cut shows a marker to be done in red, and a completed one in green.
                child.set("completed", "0" if marker.color == otio.schema.MarkerColor.RED else "1")

    def _asset(self, item: Any, start: int, frames: int) -> str:
        """Return the id of the asset of a clip, which is made if it is new."""
        reference = item.media_reference
        names = (getattr(reference, "target_url", None), getattr(reference, "name", None), item.name, "missing")
        url = next(name for name in names if name)
        if not re.match(r"[a-z][a-z0-9+.-]*:", url):
            url = Path(url).as_uri() if url.startswith("/") else f"./{url}"
        span = getattr(reference, "available_range", None)
        if span is not None:
            start, frames = self._frames(span.start_time), self._frames(span.duration)
        key = (url, start, frames)
        if key not in self._assets:
            self._assets[key] = f"r{len(self._assets) + 2}"
            ElementTree.SubElement(
                self._resources,
                "asset",
                id=self._assets[key],
                name=item.name or "",
                src=url,
                start=self._text(start),
                duration=self._text(frames),
                hasVideo="1",
                format="r1",
            )
        return self._assets[key]

    def _connect(self, spine: ElementTree.Element, track: Any, lane: int) -> None:
        """Connect the runs of a track's clips to the storyline below, as storylines of a lane."""
        language = noted_in(track).get("language", "")
        for begin, items in _runs(track, self._frames):
            at = self._timeline.start + begin
            for below in spine:
                if below.tag == "transition":
                    continue
                offset, duration, own = (_frames_of(below, name, self._timeline.rate) for name in ("offset", "duration", "start"))
                if offset <= at < offset + duration:
                    connected = ElementTree.SubElement(below, "spine", lane=str(lane), offset=self._text(own + at - offset))
                    self._storyline(connected, items, 0, f"dub.{language}" if language else "")
                    break


def _frames_of(element: ElementTree.Element, name: str, rate: Fraction) -> int:
    text = element.get(name, "0s").removesuffix("s")
    return int(Fraction(text) * rate)


def _items(track: Any) -> Iterator[Any]:
    otio = opentimelineio()
    return (item for item in track if not isinstance(item, otio.schema.Transition))


def _runs(track: Any, frames: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield the runs of items between gaps, each with its first frame on the track. Transitions belong to the run."""
    otio = opentimelineio()
    position, begin = 0, 0
    run: list[Any] = []
    for item in track:
        if isinstance(item, otio.schema.Gap):
            if run:
                yield begin, run
            position += frames(item.trimmed_range().duration)
            begin, run = position, []
            continue
        run.append(item)
        if not isinstance(item, otio.schema.Transition):
            position += frames(item.trimmed_range().duration)
    if run:
        yield begin, run


def fcpxml_text(timeline: Timeline) -> str:
    """Return a timeline as FCPXML. Its first video track is the first storyline, and other video tracks are connected to it.

    Raises:
        InvalidRequestError: the timeline has an item that FCPXML, as dubstage writes it, cannot hold.
    """
    return _Writer(timeline).document()
