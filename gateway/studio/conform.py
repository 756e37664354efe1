"""A timeline with the dubbed videos of a batch: a new video track for each language, cut on the frames of the timeline.

The videos lie in the time of the media that they were made from. So a clip of the new track has the source range of the clip
below, and its handles lie outside of the range. A clip without a dub is a gap, through which the track below shows, except where a
transition joins the clip to a dubbed one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.types import WRITTEN, ShotRecord
from gateway.media.locations import is_url, local_path
from gateway.media.sequence_names import LISTING_SUFFIX
from gateway.safe_paths import path_below
from gateway.studio.delivery import delivered_name
from gateway.studio.review_export import ReviewedShot, decision_marker
from gateway.studio.timeline import Clip, Timeline, clips_of, opentimelineio, rate_text, same_name
from gateway.studio.timeline_files import write_timeline
from gateway.studio.turnover import DubbedClip, DubbedClips
from services.common.errors import InvalidRequestError

_FLAG: Final = "ORANGE"
"""Colour of markers of shots that a person must look at."""


@dataclass(frozen=True, slots=True)
class Conformed:
    """A conformed timeline, before it is written.

    Attributes:
        timeline: the timeline with its new tracks.
        tracks: the new tracks by language.
        problems: dubbed clips that are not on the new tracks, one sentence each.
        clips: number of clips with a dubbed video, over all languages.
    """

    timeline: Timeline
    tracks: Mapping[str, Any]
    problems: tuple[str, ...]
    clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ConformRequest:
    """Timeline to conform, with the shots and decisions of a batch.

    Attributes:
        timeline: the timeline.
        track: track whose clips were dubbed, an `opentimelineio.schema.Track`.
        dubbed: clips of the manifest.
        records: records of all shots, by id.
        decisions: decisions about the present videos, by id of the shot.
        languages: languages of the new tracks; empty: all.
        approved: whether only approved videos are taken.
        delivered: folder of `dubstage batch deliver`, whose videos are taken; None: the videos of the batch.
        whole_track: whether a clip without a dub is itself on the new track, in place of a gap: for EDLs, which hold one track.
    """

    timeline: Timeline
    track: Any
    dubbed: DubbedClips
    records: Mapping[str, ShotRecord]
    decisions: Mapping[str, Decision]
    languages: Sequence[str]
    approved: bool
    delivered: Path | None
    whole_track: bool


def conform(request: ConformRequest) -> Conformed:
    """Add the tracks of the languages to a timeline.

    Raises:
        InvalidRequestError: the manifest has another frame rate, or no clip in one of the languages.
    """
    timeline, dubbed = request.timeline, request.dubbed
    if Fraction(dubbed.rate) != timeline.rate:
        raise InvalidRequestError(
            f"{timeline.path} has {rate_text(timeline.rate)} frames per second, and the timeline of the batch had "
            f"{rate_text(Fraction(dubbed.rate))}",
            field="timeline",
        )
    languages = sorted({language for clip in dubbed.clips for language in clip.rows})
    for language in request.languages:
        if language not in languages:
            raise InvalidRequestError(f"{language[:80]}: the batch has {', '.join(languages)}", field="language", named=True)
    clips = clips_of(timeline, request.track)
    matches = _matches(clips, dubbed.clips)
    problems: list[str] = []
    tracks = {}
    number = 0
    for language in request.languages or languages:
        shots = dict(_shots(request, clips, matches, language, problems))
        number += len(shots)
        tracks[language] = _track(request, clips, shots, language)
    for track in tracks.values():
        timeline.content.tracks.append(track)
    return Conformed(timeline, tracks, tuple(problems), number)


@dataclass(frozen=True, slots=True)
class _Match:
    """The dubbed clip for a clip of the timeline; `problem` says why its video does not fit, empty: it does."""

    dubbed: DubbedClip
    problem: str = ""


def _matches(clips: Sequence[Clip], dubbed: Sequence[DubbedClip]) -> dict[int, _Match]:
    """Return the dubbed clips of clips, by the index of the clip. The same part of the same media is the same clip.

    Reels count only for clips that name no file: programs cut them to eight letters, so that several files have the same.
    """
    by_file: dict[str, list[DubbedClip]] = {}
    by_reel: dict[str, list[DubbedClip]] = {}
    for one in dubbed:
        for name in one.files:
            by_file.setdefault(same_name(name), []).append(one)
        for name in one.reels:
            by_reel.setdefault(same_name(name), []).append(one)
    matches: dict[int, _Match] = {}
    for clip in clips:
        named = [one for name in clip.file_names or clip.reel_names for one in by_file.get(name, [])]
        if not clip.file_names:
            named += [one for name in clip.reel_names for one in by_reel.get(name, [])]
        same = {one.number: one for one in named}
        near = [one for one in same.values() if _meet(clip, one)]
        if not near:
            continue
        best = min(near, key=lambda one: (not _covers(one, clip), _distance(one, clip), abs(one.number - clip.number)))
        problem = "" if _covers(best, clip) else _missing(best, clip)
        matches[clip.index] = _Match(best, problem or clip.refused)
    return matches


def _needed(clip: Clip) -> range:
    """Return the frames of the media that a clip shows, with its transitions."""
    return range(clip.source - clip.before, clip.source + len(clip.record) + clip.after)


def _meet(clip: Clip, dubbed: DubbedClip) -> bool:
    return clip.source < dubbed.source + dubbed.length and dubbed.source < clip.source + len(clip.record)


def _covers(dubbed: DubbedClip, clip: Clip) -> bool:
    needed = _needed(clip)
    return dubbed.start <= needed.start and needed.stop <= dubbed.start + dubbed.frames


def _distance(dubbed: DubbedClip, clip: Clip) -> int:
    return abs(dubbed.source - clip.source) + abs(dubbed.source + dubbed.length - clip.source - len(clip.record))


def _missing(dubbed: DubbedClip, clip: Clip) -> str:
    needed = _needed(clip)
    before, after = max(0, dubbed.start - needed.start), max(0, needed.stop - dubbed.start - dubbed.frames)
    ends = [
        f"{count} frames {where} its {end}"
        for count, where, end in ((before, "before", "begin"), (after, "behind", "end"))
        if count
    ]
    return f"it needs {' and '.join(ends)}, which its dubbed part lacks: make a new batch with dubstage batch from-timeline"


def _shots(
    request: ConformRequest, clips: Sequence[Clip], matches: Mapping[int, _Match], language: str, problems: list[str]
) -> Iterator[tuple[int, tuple[Clip, DubbedClip, ShotRecord]]]:
    """Yield the clips whose video is there, by index; the others are problems."""
    used = set()
    for clip in clips:
        match = matches.get(clip.index)
        if match is None or language not in match.dubbed.rows:
            continue
        used.add(match.dubbed.number)
        record = request.records.get(match.dubbed.rows[language])
        problem = match.problem or _problem(request, match.dubbed, record, match.dubbed.rows[language])
        if problem:
            problems.append(f"{language}: {clip.title} at {request.timeline.label(clip.record.start)}: {problem}")
        elif record is not None:
            yield clip.index, (clip, match.dubbed, record)
    for one in request.dubbed.clips:
        if language in one.rows and one.number not in used:
            problems.append(f"{language}: shot {one.rows[language]} is on no clip of {request.timeline.path.name}")


def _problem(request: ConformRequest, dubbed: DubbedClip, record: ShotRecord | None, shot_id: str) -> str:
    """Return why the video of a shot cannot be used; empty: it can be."""
    if record is None:
        return f"the batch has no shot {shot_id}"
    if record.state not in WRITTEN:
        return f"shot {shot_id} is {record.state}"
    decision = request.decisions.get(shot_id)
    if request.approved and (decision is None or decision.state is not ReviewState.APPROVED):
        return f"shot {shot_id} is {'undecided' if decision is None else decision.state}"
    rate = request.timeline.rate
    own = Fraction(record.frame_rate) if record.frame_rate else rate
    if (record.frames, own) != (dubbed.frames, rate):
        return (
            f"the video of shot {shot_id} has {record.frames} frames at {rate_text(own)} frames per second, and its part "
            f"{dubbed.frames} at {rate_text(rate)}: the footage was replaced"
        )
    video = _video(request, record)
    if video.endswith(LISTING_SUFFIX):
        return f"shot {shot_id} is an image sequence: put its frames into the timeline yourself"
    is_there = is_url(video) or os.path.isfile(video)
    return "" if is_there else f"the video of shot {shot_id} is missing: {video}"


def _video(request: ConformRequest, record: ShotRecord) -> str:
    """Return the path or URL of the video of a shot."""
    if request.delivered is not None:
        return str(path_below(request.delivered.absolute(), delivered_name(record), field="delivered"))
    return local_path(record.output) or record.output


def _track(
    request: ConformRequest, clips: Sequence[Clip], shots: Mapping[int, tuple[Clip, DubbedClip, ShotRecord]], language: str
) -> Any:
    """Return the new track of a language."""
    otio = opentimelineio()
    items = list(request.track)
    joined = _joined(items, set(shots))
    track = otio.schema.Track(f"dub {language}", kind=otio.schema.TrackKind.Video, metadata={"dubstage": {"language": language}})
    for index, item in enumerate(items):
        if isinstance(item, otio.schema.Transition):
            if request.whole_track or joined & {index - 1, index + 1}:
                track.append(item.deepcopy())
        elif index in shots:
            track.append(_clip(request, item, *shots[index]))
        elif isinstance(item, otio.schema.Gap) or request.whole_track or index in joined:
            track.append(item.deepcopy())
        else:
            track.append(otio.schema.Gap(duration=item.trimmed_range().duration))
    return track


def _joined(items: Sequence[Any], dubbed: set[int]) -> set[int]:
    """Return the indices of dubbed clips and of the items that transitions join to them."""
    otio = opentimelineio()
    joined = set(dubbed)
    changed = True
    while changed:
        changed = False
        for index, item in enumerate(items):
            sides = {index - 1, index + 1}
            if isinstance(item, otio.schema.Transition) and joined & sides and not sides <= joined:
                joined |= sides
                changed = True
    return joined


def _clip(request: ConformRequest, item: Any, clip: Clip, dubbed: DubbedClip, record: ShotRecord) -> Any:
    """Return a clip of the new track: the clip below with the dubbed video as its media, and with markers."""
    otio = opentimelineio()
    rate = float(request.timeline.rate)

    def span(start: int, frames: int) -> Any:
        return otio.opentime.TimeRange(otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(frames, rate))

    video = _video(request, record)
    url = video if is_url(video) else Path(video).absolute().as_uri()
    new_clip = item.deepcopy()
    new_clip.media_reference = otio.schema.ExternalReference(target_url=url, available_range=span(dubbed.start, dubbed.frames))
    new_clip.media_reference.name = Path(video).name
    new_clip.source_range = span(clip.source, len(clip.record))
    new_clip.metadata["dubstage"] = {"shot": record.id, "reel": record.id, "drop": dubbed.drop}
    new_clip.markers.clear()
    decision = request.decisions.get(record.id)
    if decision is not None:
        at = dubbed.start + decision.frame if decision.frame is not None else clip.source
        shown = min(max(at, clip.source), clip.source + len(clip.record) - 1)
        new_clip.markers.append(decision_marker(otio, ReviewedShot(record, decision, request.timeline.rate), shown))
    if record.look:
        text = " ".join(f"look: {'; '.join(record.look)}".split())
        said = {"dubstage": {"id": record.id, "look": list(record.look)}}
        new_clip.markers.append(otio.schema.Marker(name=text, marked_range=span(clip.source, 1), color=_FLAG, metadata=said))
    return new_clip


def write_conformed(conformed: Conformed, output: Path) -> None:
    """Write a conformed timeline, whole or not at all. Blocks.

    Raises:
        InvalidRequestError: the format cannot hold the timeline, or the file cannot be written.
    """
    write_timeline(conformed.timeline, output, tracks=list(conformed.tracks.values()))
