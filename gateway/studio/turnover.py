"""From a timeline, dubbing scripts and folders of media to a manifest: one row for each clip and language that has a line.

FOLDER/NAME.jsonl        manifest for `dubstage batch submit`
FOLDER/clips.json        which part of which media each clip is, for `dubstage batch conform`
FOLDER/parts/            each clip with its handles, cut from its media without loss (gateway/media/parts.py)
FOLDER/speech/           the rest of lines that go on behind a cut
FOLDER/dubs/LANGUAGE/    the videos that the batch will write

A row could name a part of its footage instead, but tracking, sound, streams, signatures, pages and pods would all have to know the
part. A file of its own is exact with what is there, and one part serves all languages.
"""

from __future__ import annotations

import json
import os
import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.batch.assets import ResolvedReferences, resolve_references
from gateway.batch.row_ranges import MOST_ROWS
from gateway.media.inspection import inspect_video
from gateway.media.parts import PART_SUFFIX, check_part, write_part
from gateway.media.sound import sound_length, write_sound_from
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo
from gateway.safe_paths import bounded_bytes, make_folder, path_below
from gateway.studio.dubbing_script import ScriptLine
from gateway.studio.timeline import (
    Clip,
    Timeline,
    file_name,
    path_of_url,
    present_path,
    rate_text,
    same_name,
    timecode_frames,
    timecode_label,
)
from services.common.errors import InvalidRequestError, MediaUnsupportedError
from services.common.files import write_whole
from services.common.texts import Text

MEDIA_SUFFIXES: Final = (".mov", ".mp4", ".m4v", ".mxf", ".mkv", ".avi", ".mts", ".m2ts", ".ts", ".webm", ".nut", ".mpg")
"""Endings of the files that are media of clips."""
CLIPS: Final = "clips.json"
"""Name of the file with the clips of a manifest, in the folder of the manifest."""
_PARTS: Final = "parts"
_SPEECH: Final = "speech"
_DUBS: Final = "dubs"
_MOST_BYTES: Final = 256 << 20
_SHORT_REEL: Final = 8
"""Most characters of a reel in an EDL. Programs cut the name of the file to this length."""
_OWN_CODECS: Final = {"prores": "prores", "dnxhd": "dnxhr"}
"""Codecs of dubs by the codec of the media, where the dub keeps the codec of its footage."""
_PATTERN_FIELDS: Final = ("language", "id", "speaker", "clip", "number")


class DubbedClip(BaseModel):
    """One clip of `clips.json`.

    Attributes:
        number, name: as `Clip`.
        files: `Clip.file_names`, with the name of the media that was found.
        reels: `Clip.reel_names`.
        start: first frame of the part, in the time of the clip's media.
        frames: frames of the part.
        source, length: first frame of the clip in the time of its media, and its frames.
        drop: whether source timecodes are drop frame.
        rows: ids of the rows by language.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    name: str
    files: tuple[str, ...]
    reels: tuple[str, ...]
    start: int
    frames: int
    source: int
    length: int
    drop: bool
    rows: dict[str, str]


class DubbedClips(BaseModel):
    """The content of `clips.json`. `rate` is the frame rate, NUM/DEN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    rate: Annotated[str, Field(pattern=r"^[1-9]\d{0,8}/[1-9]\d{0,8}$")]
    clips: tuple[DubbedClip, ...]


def read_clips(path: Path) -> DubbedClips:
    """Read the clips of a manifest.

    Raises:
        InvalidRequestError: the file cannot be read, or was not written by `dubstage batch from-timeline`.
    """
    try:
        return DubbedClips.model_validate_json(bounded_bytes(path, _MOST_BYTES))
    except OSError as problem:
        raise InvalidRequestError(
            f"{path}: cannot be read: {problem.strerror or problem}; `dubstage batch from-timeline` writes this file", field="clips"
        ) from problem
    except ValidationError as problem:
        raise InvalidRequestError(f"{path}: not a file of `dubstage batch from-timeline`", field="clips") from problem


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnoverRequest:
    """Timeline, scripts and media that a manifest is made from.

    Attributes:
        timeline: the timeline.
        clips: clips of the track that is dubbed.
        lines: lines of the scripts; empty: every clip with a speech file has one line.
        languages: languages to dub without a script.
        media: folders of media; empty: the paths of the timeline.
        speech: pattern of speech files with {language}, {id}, {speaker}, {clip}, {number}; None: the scripts name the files.
        handles: frames before and after each clip.
        face: face of lines without actor and face, as a manifest writes it.
        actors: enrolled actors by name of the speaker.
        defaults: options of all rows.
        folder: folder to write to.
        name: name of the batch.
    """

    timeline: Timeline
    clips: Sequence[Clip]
    lines: Sequence[ScriptLine]
    languages: Sequence[str]
    media: Sequence[Path]
    speech: str | None
    handles: int
    face: str
    actors: Mapping[str, str]
    defaults: Mapping[str, Any]
    folder: Path
    name: str


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A line with its sound. `frames` are the frames of the timeline in which the line is spoken."""

    line: ScriptLine
    sound: Path
    samples: int
    sample_rate_hz: int
    frames: range


@dataclass(slots=True)
class _Work:
    """A clip to dub: its media, the frames of the media that the part has, and its lines by language."""

    clip: Clip
    info: MediaInfo
    part: range
    media_start: int
    drop: bool
    whole: bool
    spoken: dict[str, list[_Spoken]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turnover:
    """A checked turnover, before anything is written.

    Attributes:
        problems: clips and lines that are refused, one sentence each.
        overlaps: lines that begin while another line of the same face is spoken, one sentence each. Their dubs are refused if the
            face turns out to be one person's.
        silent: number of clips without a line, which get no row.
    """

    request: TurnoverRequest
    problems: tuple[str, ...]
    overlaps: tuple[str, ...]
    silent: int
    _work: tuple[_Work, ...]

    @property
    def clips(self) -> int:
        """Number of clips that get rows."""
        return len(self._work)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(len(work.spoken) for work in self._work)


class _Media:
    """Finds the media of clips by entity reference and by name, and looks at each file once. The folder `without` is left out."""

    def __init__(self, folders: Sequence[Path], beside: Path, without: Path, assets: ResolvedReferences) -> None:
        self._beside, self._folders, self._assets = beside, folders, assets
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_reel: dict[str, list[Path]] | None = None
        self._infos: dict[Path, MediaInfo] = {}
        for folder in folders:
            if not folder.is_dir():
                raise InvalidRequestError(f"{folder}: no such folder", field="media", named=True)
            for above, below, names in os.walk(folder):
                below[:] = [name for name in below if Path(above, name).absolute() != without.absolute()]
                for name in sorted(names):
                    # macOS leaves a file ._NAME beside a file NAME on other file systems.
                    if PurePath(name).suffix.lower() in MEDIA_SUFFIXES and not name.startswith("."):
                        self._by_name[same_name(name)].append(Path(above, name))
                        self._by_stem[same_name(PurePath(name).stem)].append(Path(above, name))

    def find(self, clip: Clip) -> Path:
        """Return the media of a clip.

        Raises:
            ValueError: there is none, or there are several. The message says so.
        """
        for name in clip.files:
            if os.path.isfile(path := self._assets.locations.get(name, "")):
                return Path(path)
        if not self._folders:
            return self._at_its_path(clip)
        for files in self._candidates(clip):
            if len(files) == 1:
                return files[0]
            if files:
                raise ValueError(f"two files may be its media: {files[0]} and {files[1]}: name one of their folders")
        names = ", ".join(dict.fromkeys(filter(None, [*map(file_name, clip.files), *clip.reels, clip.name]))) or "none"
        raise ValueError(f"no file in the folders of the media has one of its names ({names})")

    def _candidates(self, clip: Clip) -> Iterable[list[Path]]:
        """Yield files that may be the media of a clip, most trusted first."""
        names = [*map(file_name, clip.files), *clip.reels, *([clip.name] if clip.name else [])]
        for name in names:
            yield self._by_name.get(same_name(name), [])
        for name in names:
            yield self._by_stem.get(same_name(name), [])
            yield self._by_stem.get(same_name(PurePath(name).stem), [])
        for reel in clip.reels:
            yield self._of_reel(same_name(reel))
        for reel in clip.reels:
            short = _letters(reel)
            if len(short) == _SHORT_REEL:
                yield [path for stem, paths in self._by_stem.items() if _letters(stem)[:_SHORT_REEL] == short for path in paths]

    def _of_reel(self, reel: str) -> list[Path]:
        """Return the files that state a reel. The first call looks at all files."""
        if self._by_reel is None:
            self._by_reel = defaultdict(list)
            for path in [path for paths in self._by_name.values() for path in paths]:
                try:
                    named = reel_of(self.info(path))
                except MediaUnsupportedError:
                    continue
                if named:
                    self._by_reel[same_name(named)].append(path)
        return self._by_reel.get(reel, [])

    def _at_its_path(self, clip: Clip) -> Path:
        for name in clip.files:
            path = present_path(self._beside / path_of_url(name))
            if os.path.isfile(path) and path.suffix.lower() in MEDIA_SUFFIXES:
                return path
        name = clip.files[0] if clip.files else ""
        if name in self._assets.problems:
            raise ValueError(f"its media {self._assets.problems[name]}")
        location = f", which is {self._assets.locations[name]}," if name in self._assets.locations else ""
        raise ValueError(f"its media {name}{location} is not there: give the folder of the media")

    def info(self, path: Path) -> MediaInfo:
        """Return the description of a file.

        Raises:
            MediaUnsupportedError: the file is no video.
        """
        if path not in self._infos:
            self._infos[path] = inspect_video(path)
        return self._infos[path]


def timecode_of(info: MediaInfo) -> str:
    """Return the timecode of a video's first frame as the file states it; empty: the file states none."""
    return _tag(info, "timecode")


def reel_of(info: MediaInfo) -> str:
    """Return the reel name of a video as the file states it; empty: the file states none."""
    return _tag(info, "reel_name")


def _tag(info: MediaInfo, name: str) -> str:
    tag_sets = (info.video.metadata, *(other.metadata for other in info.others), info.metadata)
    return next((tags[name] for tags in tag_sets if tags.get(name)), "")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())


def plan_turnover(request: TurnoverRequest, *, on_clip: Callable[[int], None] = lambda _: None) -> Turnover:
    """Check a turnover whole, and write nothing. Reads media and speech. Blocks.

    Args:
        on_clip: called with the number of clips that were looked at.

    Raises:
        InvalidRequestError: a folder or the pattern of the speech files is wrong, or the asset manager cannot be loaded.
        BackendUnavailableError: the asset manager fails.
    """
    if request.speech is not None:
        _check_pattern(request.speech)
    problems: list[str] = []
    overlaps: dict[str, None] = {}
    spoken = _spoken_lines(request, problems)
    assets = resolve_references(name for clip in request.clips for name in clip.files)
    media = _Media(request.media, request.timeline.path.parent, request.folder, assets)
    work: list[_Work] = []
    silent = 0
    used: set[int] = set()
    for number, clip in enumerate(request.clips, 1):
        own = [one for one in spoken if _meet(one.frames, clip.record)] if request.lines else _clip_speech(request, clip, problems)
        used.update(map(id, own))
        if not own:
            silent += 1
        else:
            try:
                clip_work = _work_of(request, clip, media)
                for one in own:
                    clip_work.spoken.setdefault(one.line.language, []).append(one)
                work.append(clip_work)
                overlaps.update(dict.fromkeys(_overlaps(request, clip_work)))
            except (ValueError, MediaUnsupportedError) as problem:
                problems.append(f"{clip.title} at {request.timeline.label(clip.record.start)}: {problem}")
        on_clip(number)
    problems += [
        f"{one.line.where}: no clip of the track is shown while the line is spoken" for one in spoken if id(one) not in used
    ]
    if sum(len(one.spoken) for one in work) > MOST_ROWS:
        raise InvalidRequestError(f"more than {MOST_ROWS} rows: dub fewer clips or languages at once", field="timeline")
    return Turnover(request, tuple(problems), tuple(overlaps), silent, tuple(work))


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _overlaps(request: TurnoverRequest, work: _Work) -> Iterator[str]:
    """Yield a sentence for each line of a clip that begins while another line of the same language and face is spoken."""
    for spoken in work.spoken.values():
        last: dict[str, _Spoken] = {}
        for one in sorted(spoken, key=lambda one: one.frames.start):
            face = json.dumps(_face(request, one.line))
            before = last.get(face)
            if before is not None and one.frames.start < before.frames.stop:
                end = request.timeline.label(before.frames.stop - 1)
                yield (
                    f"{one.line.where}: begins while {before.line.where} is spoken, until {end}, and both have the same face or "
                    "actor: give one of them another face, or a shorter speech"
                )
            if before is None or one.frames.stop > before.frames.stop:
                last[face] = one


def _spoken_lines(request: TurnoverRequest, problems: list[str]) -> list[_Spoken]:
    """Return the lines with their sound; those without a usable sound file are problems."""
    spoken = []
    for number, line in enumerate(request.lines, 1):
        fields = {"language": line.language, "id": line.line_id, "speaker": line.speaker, "clip": "", "number": str(number)}
        try:
            sound = _sound_of(line, request.speech, fields)
            if sound is None:
                problems.append(f"{line.where}: names no speech file: fill the column `speech`, or give a pattern of speech files")
                continue
            spoken.append(_spoken(line, sound, request.timeline.rate))
        except (InvalidRequestError, MediaUnsupportedError) as problem:
            problems.append(Text("{where}: {problem}", where=line.where, problem=problem))
    return spoken


def _sound_of(line: ScriptLine, pattern: str | None, fields: Mapping[str, str]) -> Path | None:
    if line.speech is not None:
        return present_path(line.speech)
    return _filled(pattern, fields) if pattern is not None else None


def _check_pattern(pattern: str) -> None:
    """Raise InvalidRequestError if a pattern of speech files has an unknown field, or a brace that is not closed."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]
        if any(name not in _PATTERN_FIELDS for name in names):
            raise ValueError
        pattern.format(**dict.fromkeys(_PATTERN_FIELDS, ""))
    except (ValueError, IndexError, KeyError):
        fields = ", ".join(f"{{{name}}}" for name in _PATTERN_FIELDS)
        raise InvalidRequestError(f"{pattern[:200]!r}: the fields of a pattern are {fields}", field="speech", named=True) from None


def _filled(pattern: str, fields: Mapping[str, str]) -> Path:
    """Return the path of a pattern with its fields filled in.

    Raises:
        InvalidRequestError: a field leads out of the folder that the pattern names before its first field.
    """
    begin = next((text for text, _, _, _ in string.Formatter().parse(pattern)), "")
    folder = begin[: begin.rfind("/") + 1]
    return path_below(Path(folder), pattern.format(**fields)[len(folder) :], field="speech")


def _spoken(line: ScriptLine, sound: Path, rate: Fraction) -> _Spoken:
    samples, sample_rate_hz = sound_length(sound)
    length = Fraction(samples, sample_rate_hz) * rate
    return _Spoken(
        line, sound, samples, sample_rate_hz, range(line.start, line.start + max(1, -(-length.numerator // length.denominator)))
    )


def _clip_speech(request: TurnoverRequest, clip: Clip, problems: list[str]) -> list[_Spoken]:
    """Return the speech of a clip without a script: the files of the pattern that are there, from the first frame of the clip."""
    spoken = []
    for language in request.languages:
        fields = {
            "language": language,
            "clip": clip.name,
            "number": f"{clip.number:03d}",
            "id": f"{clip.number:03d}",
            "speaker": "",
        }
        try:
            sound = present_path(_filled(request.speech or "", fields))
            if not os.path.isfile(sound):
                continue
            line = ScriptLine(f"{clip.title}: {sound}", f"{clip.number}", clip.record.start, language)
            spoken.append(_spoken(line, sound, request.timeline.rate))
        except (InvalidRequestError, MediaUnsupportedError) as problem:
            problems.append(Text("{clip}: {problem}", clip=clip.title, problem=problem))
    return spoken


def _work_of(request: TurnoverRequest, clip: Clip, media: _Media) -> _Work:
    """Return the part of the media that a clip needs.

    Raises:
        ValueError: the clip cannot be dubbed exactly. The message says why.
        MediaUnsupportedError: the media is no video.
    """
    if clip.refused:
        raise ValueError(clip.refused)
    rate = request.timeline.rate
    path = media.find(clip)
    info = media.info(path)
    if is_still(info):
        raise ValueError(f"its media {path} is a single picture")
    if info.video.constant_rate != rate:
        own = info.video.constant_rate
        has = "a varying frame rate" if own is None else f"{rate_text(own)} frames per second"
        raise ValueError(f"its media {path} has {has}, and the timeline {rate_text(rate)}")
    label = timecode_of(info)
    drop = label[8:9] != ":" if label else bool(clip.drop)
    start = _media_start(clip, info, label, rate, drop=drop)
    first = clip.source - start
    needed = range(first - clip.before, first + len(clip.record) + clip.after)
    frames = info.video.num_frames
    if needed.start < 0 or needed.stop > frames:
        with_transitions = " with its transitions" if clip.before or clip.after else ""
        raise ValueError(
            f"it needs{with_transitions} {_span(start, needed, rate, drop=drop)}, and its media {path} has "
            f"{_span(start, range(frames), rate, drop=drop)}"
        )
    check_part(info)
    # The media may have fewer handles than the studio asks for.
    part = range(
        max(0, min(needed.start, first - request.handles)),
        min(frames, max(needed.stop, first + len(clip.record) + request.handles)),
    )
    whole = len(part) == frames and start == (timecode_frames(label, rate) if label else 0)
    return _Work(clip, info, part, start, drop, whole)


def _media_start(clip: Clip, info: MediaInfo, label: str, rate: Fraction, *, drop: bool) -> int:
    """Return the first frame of the media in the time in which the timeline names its frames.

    Args:
        label: timecode of the first frame, as the file states it; empty: the file states none.
        drop: whether source timecodes are drop frame.

    Raises:
        ValueError: the file states a timecode that does not exist, or file and timeline contradict each other.
    """
    frames = info.video.num_frames
    stated = timecode_frames(label, rate) if label else None
    if clip.media is None:
        return stated or 0
    # The timeline may know a part of the media only.
    begins = stated if stated is not None else 0
    if begins <= clip.media.start and clip.media.stop <= begins + frames and (stated is not None or not clip.media.start):
        return begins
    if len(clip.media) == frames:
        return clip.media.start
    raise ValueError(
        f"the timeline says that its media has {_span(clip.media.start, range(len(clip.media)), rate, drop=drop)}, and "
        f"{info.path} has {_span(begins, range(frames), rate, drop=drop)}"
    )


def _span(start: int, frames: range, rate: Fraction, *, drop: bool) -> str:
    labels = [timecode_label(max(0, start + frame), rate, drop=drop) for frame in (frames.start, frames.stop)]
    return f"{labels[0]} to {labels[1]}"


def write_turnover(turnover: Turnover, *, on_clip: Callable[[int], None] = lambda _: None) -> Path:
    """Write the parts, the speech behind cuts, `clips.json`, and at last the manifest. Blocks.

    Args:
        on_clip: called with the number of clips whose parts are written.

    Returns:
        The manifest.

    Raises:
        InvalidRequestError: a folder cannot be made, or a file cannot be written.
        MediaUnsupportedError: media breaks off.
        StorageFullError: no space is left.
    """
    request = turnover.request
    folder = request.folder
    languages = sorted({language for work in turnover._work for language in work.spoken})
    try:
        for name in (_PARTS, _SPEECH, *(f"{_DUBS}/{language}" for language in languages)):
            make_folder(path_below(folder, name, field="output"))
    except (OSError, ValueError) as problem:
        raise InvalidRequestError(f"{folder} cannot be made: {problem}", field="output", named=True) from problem
    rows: list[dict[str, Any]] = [{"defaults": dict(request.defaults)}] if request.defaults else []
    clips = []
    for number, work in enumerate(turnover._work, 1):
        footage = work.info.path if work.whole else _write_part(request, work)
        ids = {}
        for language, lines in sorted(work.spoken.items()):
            ids[language] = _row_id(work.clip, language)
            rows.append(_row(request, work, ids[language], language, lines, footage))
        clips.append(_dubbed_clip(work, ids))
        on_clip(number)
    rate = request.timeline.rate
    try:
        dubbed = DubbedClips(rate=f"{rate.numerator}/{rate.denominator}", clips=tuple(clips))
        write_whole(folder / CLIPS, dubbed.model_dump_json(indent=1).encode())
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        return write_whole(path_below(folder, f"{request.name}.jsonl", field="output"), text.encode())
    except OSError as problem:
        raise InvalidRequestError(
            f"{folder} cannot be written: {problem.strerror or problem}", field="output", named=True
        ) from problem


def _slug(text: str, most: int) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:most].rstrip("-")


def _row_id(clip: Clip, language: str) -> str:
    """Return the id of a row, such as `0012_sc010-sh020_de`: at most 63 characters, unique by the number of the clip."""
    return "_".join(part for part in (f"{clip.number:04d}", _slug(PurePath(clip.name).stem, 40), _slug(language, 16)) if part)


def _write_part(request: TurnoverRequest, work: _Work) -> Path:
    name = "_".join(filter(None, (f"{work.clip.number:04d}", _slug(work.clip.name, 40))))
    target = path_below(request.folder, f"{_PARTS}/{name}{PART_SUFFIX}", field="output")
    label = timecode_label(work.media_start + work.part.start, request.timeline.rate, drop=work.drop)
    write_part(work.info, work.part, target, timecode=label)
    return target


def _row(
    request: TurnoverRequest, work: _Work, row_id: str, language: str, spoken: Sequence[_Spoken], footage: Path
) -> dict[str, Any]:
    """Return the row of a clip and language. Speech that has begun before the part is cut to what is spoken in the part."""
    clip, rate = work.clip, request.timeline.rate
    # The frame of the part that shows frame 0 of the timeline.
    shift = (clip.source - work.media_start) - work.part.start - clip.record.start
    lines = []
    for number, one in enumerate(sorted(spoken, key=lambda one: one.frames.start)):
        first, sound = one.frames.start + shift, one.sound
        if first < 0:
            cut = round(Fraction(-first) / rate * one.sample_rate_hz)
            sound = path_below(request.folder, f"{_SPEECH}/{row_id}_{number + 1}.wav", field="output")
            write_sound_from(one.sound, cut, sound)
        who = _face(request, one.line)
        lines.append(
            {"start": timecode_label(max(0, first), Fraction(round(rate)), drop=False), "speech": _named(sound, request), **who}
        )
    codec = request.defaults.get("codec")
    row: dict[str, Any] = {
        "id": row_id,
        "footage": _named(footage, request),
        "output": f"{_DUBS}/{language}/{row_id}{'.mkv' if codec == 'ffv1' else '.mov'}",
        "language": language,
        "lines": lines,
    }
    own = _OWN_CODECS.get(work.info.video.codec)
    if codec is None and own is not None:
        # A part is FFV1, so the dub cannot see the codec of the media.
        row["codec"] = own
    return row


def _face(request: TurnoverRequest, line: ScriptLine) -> dict[str, Any]:
    actor = line.actor or request.actors.get(line.speaker, "")
    face: int | str = line.face or ("" if actor else request.face)
    if isinstance(face, str) and re.fullmatch(r"\d{1,9}", face):
        face = int(face)
    return {**({"actor": actor} if actor else {}), **({"face": face} if face != "" else {})}


def _named(path: Path, request: TurnoverRequest) -> str:
    """Return a path as the manifest names it: relative to the manifest inside of its folder, otherwise absolute."""
    absolute, folder = Path(os.path.abspath(path)), Path(os.path.abspath(request.folder))
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _dubbed_clip(work: _Work, rows: dict[str, str]) -> DubbedClip:
    clip = work.clip
    return DubbedClip(
        number=clip.number,
        name=clip.name,
        files=tuple(sorted(clip.file_names | {same_name(work.info.path.stem)})),
        reels=tuple(sorted(clip.reel_names)),
        start=work.media_start + work.part.start,
        frames=len(work.part),
        source=clip.source,
        length=len(clip.record),
        drop=work.drop,
        rows=rows,
    )
