"""Manifests: the shots of a batch as JSON lines. A manifest is checked whole, and every mistake is reported with line and field.

    {"defaults": {"fit": "loop", "quality": {"min_dubbed_share": 0.9}}}
    {"id": "sc010_sh020", "footage": "plates/sc010_sh020.mov", "speech": "de/sc010_sh020.wav", "output": "out/sc010_sh020.mov"}

The first line may hold `defaults`: the values of all rows that do not name them. All other lines are rows: `id`, `quality`, `say`
and `voice` (Words), and the words of a dub (gateway/dub/request/spec_text.py). `lines` is a list of lines, or the path of a JSON
file with the list. Paths are relative to the folder of the manifest, those in a file of lines to the folder of that file. Files may
be entity references (gateway/batch/assets.py). Empty lines are skipped.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import Strict, TypeAdapter, ValidationError

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
from gateway.batch.assets import resolve_references
from gateway.batch.row_ranges import MOST_ROWS
from gateway.batch.types import BatchName, Manifest, Quality, ShotSpec, Words, manifest_of
from gateway.consent.messages import consent_from
from gateway.consent.record import Consent, canonical_form, use_of
from gateway.dub.request.dub_request import check_footage, check_overlaps, frames_of_line
from gateway.dub.request.spec import LocalFiles, Refusal, colour_of, method_of, problems, request_from, without_records
from gateway.dub.request.spec_text import ROW, ROWS, actor_of, fill, plain, read_lines, word_of
from gateway.dub.sound.speech_command import check_words
from gateway.json_texts import read_json
from gateway.media.choices import OcioSettings
from gateway.media.inspection import inspect_sound, inspect_video
from gateway.media.locations import is_url, local_path
from gateway.media.pictures import HEAD_BYTES, is_picture_head
from gateway.media.scene_colour import OcioColour
from gateway.media.stills import is_named_like_picture, is_still
from gateway.transfer import consent_at, fetched, footage_problem, input_problem, output_problem
from services.common.errors import (
    ActorError,
    ActorNotReadyError,
    ArtefactNotFoundError,
    ConsentRefusedError,
    InvalidRequestError,
    MediaUnsupportedError,
    RequestError,
)
from services.common.methods import combined, method_named
from services.common.texts import Option, Text, in_words

if TYPE_CHECKING:
    from gateway.actors.store import ActorStore
    from gateway.actors.stored import ActorSummary

_LARGEST: Final = 1 << 20
"""Largest file of lines that is copied from a URL, bytes."""

_THREADS: Final = 32
"""Folders and files that are looked at at once: with a network drive, the time goes by in waiting."""
MethodOf = Callable[[ShotSpec, LineSpec | None], str]
"""Returns the name of the method that dubs a shot, or one line of its scene. Raises ActorError, ConsentRefusedError or
InvalidRequestError.
"""
_FileCheck = Callable[[str], str]
_TAKEN: Final = {
    "footage": ("video", "picture"),
    "reference": ("video", "picture"),
    "speech": ("sound",),
    "mix": ("sound",),
    "footage_sound": ("sound",),
}
"""Kinds that the files of a field may look like, besides videos, by field. The files are read as the first kind."""
_SOUND: Final = re.compile(rb"(RIFF|RF64|riff)....WAVE|FORM....AIF|fLaC|ID3|OggS|....ftypM4A|\xff[\xe0-\xff]", re.DOTALL)
"""First bytes of sounds. Of Ogg, only the whole file tells sounds from videos."""
_DOCUMENTS: Final = (b"%PDF", b"PK\x03\x04", b"{", b"[", b"<")
"""First bytes of documents: PDF, ZIP and office files, JSON, XML and HTML."""
_MOST_SUSPECTS: Final = 32
"""Most files of one check that look wrong and are read: each takes some tenths of a second."""
_OF_ONE_ROW: Final = ("id", "output")
"""Fields that differ in every row, so that they have no default."""
_STAND_IN: Final = {"id": "x", "footage": "x", "output": "x"}
"""Values of the fields that every row has, to check the defaults alone."""
_SHOT_ID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ID: Final = "takes at most 63 letters, digits, dots, hyphens and underscores, and begins and ends with a letter or a digit"
_OWN: Final = ("id", *Words.model_fields, "quality")
"""Fields of a row that are none of DubSpec."""
_NOT_SPOKEN: Final = ("speech", "lines", "audio_channel")
"""Fields of a row that words exclude."""
CheckWords = Callable[[ShotSpec], object]
"""Checks that a command can speak the words of a shot, if it has words. Raises InvalidRequestError."""
ReadLines = Callable[[str], Sequence[LineSpec]]
"""Returns the lines of a file that a manifest names. Raises InvalidRequestError."""
_QUALITY: Final = TypeAdapter(Annotated[Quality, Strict()])
MOST_BYTES: Final = 256 << 20
"""Largest manifest, bytes."""
ConsentQuestion = tuple[str | bytes | None, str | None, str | None, str | None]
"""Consent file or record, actor, project and language of a shot or a line. Those with the same four have the same answer."""


@dataclass(frozen=True, slots=True)
class SameFiles:
    """Files of paths and URLs. Two paths of the same file get the same text.

    Attributes:
        paths: paths without links in their folders, by path as written. What is missing, such as a URL, stands for itself.
        targets: paths of the files that are read, by `paths`. They differ from `paths` where the file itself is a link.
    """

    paths: Mapping[str, str]
    targets: Mapping[str, str]

    def of_output(self, uri: str) -> str:
        """Return the file that a video at a path or URL replaces or makes. A video would replace a link, not the file behind it."""
        return self.paths.get(uri, uri)

    def of_input(self, uri: str) -> set[str]:
        """Return the files that are read at a path or URL: the file by its name and, if the file is a link, the file behind it."""
        path = self.paths.get(uri, uri)
        return {path, self.targets.get(path, path)}


def real_files(shots: Iterable[ShotSpec]) -> SameFiles:
    """Return the files of all paths that shots name. Each folder and each input is looked at once. Blocks."""
    shots = tuple(shots)
    read = {uri for shot in shots for uri in shot.read.values()}
    written = {uri for shot in shots for uri in shot.written}
    local = {uri: path for uri in read | written if (path := local_path(uri)) is not None}
    folders = _looked_at(_real, {os.path.dirname(path) for path in local.values()})
    paths = {uri: os.path.join(folders[os.path.dirname(path)], os.path.basename(path)) for uri, path in local.items()}
    return SameFiles(paths, _looked_at(_target, {paths[uri] for uri in read if uri in paths}))


def _looked_at(look: Callable[[str], str], paths: Collection[str]) -> dict[str, str]:
    """Return what `look` returns, by path."""
    every = list(paths)
    # One share a thread: to hand 100,000 paths over one by one takes longer than to look at them.
    shares = [every[start::_THREADS] for start in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as threads:
        answers = threads.map(lambda share: [look(path) for path in share], shares)
        return {path: one for share, ones in zip(shares, answers, strict=True) for path, one in zip(share, ones, strict=True)}


def _target(path: str) -> str:
    return _real(path) if os.path.islink(path) else path


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        # No file can have this name, which the check of each file tells.
        return path


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a row.

    Attributes:
        line: line of the manifest, from 1.
        field: field of the row; `row` for the row as a whole.
        text: what is wrong and what was expected.
        reason: reason of the refusal, such as CONSENT_WITHDRAWN; empty: the row cannot be used as it is written.
    """

    line: int
    field: str
    text: str
    reason: str = ""


def option_mistakes(shots: Mapping[int, ShotSpec], method_of: MethodOf | None) -> list[Mistake]:
    """Return what is wrong with the rows by themselves, without their files.

    Args:
        shots: shots by line.
        method_of: looks the actors up; None: actors are not looked up.
    """
    look = method_of or _method
    mistakes = [
        Mistake(line, *_refusal_parts(error, field))
        for line, shot in shots.items()
        for field, error in problems(shot.dub, partial(look, shot))
    ]
    mistakes += [
        Mistake(line, "preview", "a shot of a batch is delivered whole: preview it as a dub of its own")
        for line, shot in shots.items()
        if shot.dub.preview
    ]
    # `ActorLookup` checks project and language again, with the consent record.
    return list(dict.fromkeys(mistakes))


def repeat_mistakes(shots: Mapping[int, ShotSpec], *, follow_links: bool) -> list[Mistake]:
    """Return ids and outputs that stand in several rows, and outputs that are the input of a row.

    Args:
        shots: shots by line.
        follow_links: whether two paths of this machine that differ only by symbolic links are the same file.
    """
    files = real_files(shots.values()) if follow_links else SameFiles({}, {})
    mistakes: list[Mistake] = []
    ids: dict[str, tuple[int, str]] = {}
    outputs: dict[str, tuple[int, str]] = {}
    inputs = {
        file: (line, field, uri) for line, shot in shots.items() for field, uri in shot.read.items() for file in files.of_input(uri)
    }
    for line, shot in shots.items():
        # Files are named by the ids, and some file systems do not tell A from a.
        before, other = ids.setdefault(shot.id.lower(), (line, shot.id))
        if before != line:
            alike = "has this id already" if other == shot.id else f"has the id {other}, which differs only in case"
            mistakes.append(Mistake(line, "id", f"{shot.id}: line {before} {alike}"))
        mistakes += _taken_outputs(line, shot, files, outputs, inputs)
    return mistakes


def _taken_outputs(
    line: int,
    shot: ShotSpec,
    files: SameFiles,
    outputs: dict[str, tuple[int, str]],
    inputs: Mapping[str, tuple[int, str, str]],
) -> Iterator[Mistake]:
    """Yield what is wrong with the files that a shot writes, and add them to `outputs`.

    Args:
        outputs: line and path or URL by file that a row before writes.
        inputs: line, field and path or URL by file that a row reads.
    """
    for written in shot.written:
        # The list and the sound of an image sequence are named after its pattern.
        named = written if written == shot.output else f"{shot.output} ({PurePath(written).name})"
        file = files.of_output(written)
        before, other = outputs.setdefault(file, (line, written))
        if before != line:
            linked = "" if other == written else f" as {other}, through a link"
            yield Mistake(line, "output", f"{named}: line {before} writes this video already{linked}")
            return
        if file in inputs:
            reader, field, uri = inputs[file]
            linked = "" if uri == written else f" ({uri}, through a link)"
            yield Mistake(line, "output", f"{named} is the {field} of line {reader}{linked}: give another name")
            return


def file_mistakes(shots: Mapping[int, ShotSpec]) -> list[Mistake]:
    """Return files that are missing, cannot be read or cannot be written. Each file is looked at once, however many rows name it.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store of a URL refuses, or does not answer.
    """
    wanted = [(line, field, uri) for line, shot in shots.items() for field, uri in shot.uris.items()]
    distinct = list(dict.fromkeys((_check_of(field), uri) for _, field, uri in wanted))
    with ThreadPoolExecutor(_THREADS) as threads:
        said = dict(zip(distinct, threads.map(_checked, distinct), strict=True))
    return [Mistake(line, field, text) for line, field, uri in wanted if (text := said[_check_of(field), uri])]


def _check_of(field: str) -> _FileCheck:
    records = dict.fromkeys(("consent", "reference_consent"), _consent_problem)
    checks = {"footage": footage_problem, "output": output_problem, **records}
    return checks.get(field.rpartition(".")[2], input_problem)


def _checked(wanted: tuple[_FileCheck, str]) -> str:
    check, uri = wanted
    return check(uri)


def _consent_problem(uri: str) -> str:
    try:
        consent_at(uri)
    except (InvalidRequestError, ArtefactNotFoundError) as error:
        return error.said(ROWS)
    return ""


class _MediaFile(NamedTuple):
    """File of this machine that a shot names: line of the shot, field, last word of the field, and path."""

    line: int
    field: str
    word: str
    path: str


def _media_files(shots: Mapping[int, ShotSpec]) -> list[_MediaFile]:
    return [
        _MediaFile(line, field, word, path)
        for line, shot in shots.items()
        for field, uri in shot.inputs.items()
        if (word := field.rpartition(".")[2]) in _TAKEN
        and not (word == "footage" and shot.is_sequence)
        and (path := local_path(uri)) is not None
    ]


def _media_mistakes(files: Sequence[_MediaFile], looks: Mapping[str, str]) -> list[Mistake]:
    """Return files that look like files of another kind than their field takes, such as a picture as speech, and cannot be used.

    Only files that look wrong are read as a dub reads them: a batch may have 100,000 videos, and only the worker opens them.

    Args:
        looks: `_looks_like` of each file, by path.
    """
    suspects = dict.fromkeys((_TAKEN[word][0], path) for _, _, word, path in files if looks[path] not in ("", *_TAKEN[word]))
    first = list(suspects)[:_MOST_SUSPECTS]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        said = dict(zip(first, threads.map(_media_problem, first), strict=True))
    return [Mistake(line, field, text) for line, field, word, path in files if (text := said.get((_TAKEN[word][0], path)))]


def _looks_like(path: str) -> str:
    """Return what a file looks like by its first bytes, or by its name: picture, sound or document; empty: none of these."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        # The file was removed meanwhile: the worker tells.
        return ""
    if is_picture_head(head):
        return "picture"
    if _SOUND.match(head):
        return "sound"
    named = (mimetypes.guess_type(path, strict=False)[0] or "").partition("/")[0]
    return "document" if head.startswith(_DOCUMENTS) or named == "text" else {"image": "picture", "audio": "sound"}.get(named, "")


def _media_problem(suspect: tuple[str, str]) -> str:
    """Return why a dub refuses a file as a video or as a sound; empty: the dub takes the file."""
    kind, path = suspect
    try:
        if kind == "video":
            inspect_video(Path(path))
        else:
            inspect_sound(Path(path))
    except MediaUnsupportedError as problem:
        return problem.said(ROWS)
    return ""


def scene_mistakes(shots: Mapping[int, ShotSpec]) -> list[Mistake]:
    """Return lines that begin after the end of their footage, whose speech cannot be used, or that overlap and are of one face.

    Only files of this machine are read. Lines of one face are known before the footage is tracked if they name the face by its
    number.
    """
    # Only the worker makes a video of an image sequence.
    scenes = {
        line: shot
        for line, shot in shots.items()
        if shot.dub.lines and not shot.is_sequence and not any(map(is_url, shot.uris.values()))
    }
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        by_scene = threads.map(_scene_mistakes, scenes, scenes.values())
    return [mistake for mistakes in by_scene for mistake in mistakes]


def _scene_mistakes(number: int, shot: ShotSpec) -> list[Mistake]:
    spec = without_records(shot.dub)
    dub = request_from(spec, LocalFiles(), threads=1)
    try:
        info = inspect_video(dub.footage)
    except MediaUnsupportedError as problem:
        return [Mistake(number, "footage", problem.said(ROWS))]
    if is_still(info):
        return [Mistake(number, "footage", f"{spec.footage_uri} is a single picture, and a scene needs a video")]
    mistakes, frames = [], {}
    for index, line in enumerate(dub.lines):
        try:
            frames[index] = frames_of_line(line, info)
        except (InvalidRequestError, MediaUnsupportedError) as problem:
            field = problem.field if problem.field in ("start", "boxes") else "speech"
            mistakes.append(Mistake(number, f"lines[{index}].{field}", problem.said(ROWS)))
    try:
        faces = [line.face_id if line.HasField("face_id") else None for line in spec.lines]
        check_overlaps([dub.lines[index] for index in frames], list(frames.values()), [faces[index] for index in frames])
    except InvalidRequestError as problem:
        mistakes.append(Mistake(number, "lines", problem.said(ROWS)))
    return mistakes


def _method(shot: ShotSpec, line: LineSpec | None = None) -> str:
    return method_of(shot.dub)


def _refusal_parts(error: Refusal, field: str) -> tuple[str, str, str]:
    """Return field, text and reason of a refusal as a row names the field."""
    return word_of(field), error.said(ROWS), "" if isinstance(error, RequestError) else error.reason


def lines_at(uri: str) -> list[LineSpec]:
    """Return the lines of a JSON file. Blocks.

    Args:
        uri: absolute path or URL.

    Raises:
        InvalidRequestError: as `read_lines`, or no file lies at the URL.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    path = local_path(uri)
    if path is not None:
        return read_lines(Path(path))
    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = fetched(uri, Path(folder), field="lines", max_bytes=_LARGEST)
        except ArtefactNotFoundError as missing:
            raise InvalidRequestError(missing.said(), field="lines") from missing
        return read_lines(copy, shown_name=uri)


def _in_folder_of(uri: str, line: LineSpec) -> LineSpec:
    """Return a line of the file at a path or URL, with the names that the manifest could have written."""
    folder = uri.rpartition("/")[0]
    copied = deepcopy(line)
    for field in ("speech_uri", "consent_uri"):
        name = getattr(line, field)
        if folder and name and not is_url(name) and not name.startswith(("/", "file://")):
            setattr(copied, field, f"{folder}/{name}")
    return copied


class _LinesReader:
    """Replaces the names of files by the files' lines, and reads each file once.

    Args:
        read: reads a file.
    """

    def __init__(self, read: ReadLines) -> None:
        self._read = read
        self._lines: dict[str, tuple[LineSpec, ...]] = {}

    def __call__(self, row: Any) -> Any:
        """Return a row with the lines of the file that the row names."""
        uri = row.get("lines") if isinstance(row, dict) else None
        if not isinstance(uri, str):
            return row
        if uri not in self._lines:
            self._lines[uri] = tuple(_in_folder_of(uri, line) for line in self._read(uri))
        return {**row, "lines": list(self._lines[uri])}


def shots_by_line(content: bytes, *, shown_name: str, read: ReadLines) -> tuple[dict[int, ShotSpec], list[Mistake]]:
    """Return the shots by line, with paths as they stand there, and the mistakes of the lines that are no shots.

    Args:
        content: bytes of a manifest.
        shown_name: name of the manifest in messages.
        read: reads the file of lines that a row names, as the row names it.

    Raises:
        InvalidRequestError: there are more than `MOST_ROWS` rows.
    """
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    rows = len(lines) - (bool(lines) and _gives_defaults(lines[0][1]))
    if rows > MOST_ROWS:
        raise InvalidRequestError(
            f"{shown_name}: {rows} rows, and a batch has at most {MOST_ROWS}: cut the manifest into several", field="manifest"
        )
    shots: dict[int, ShotSpec] = {}
    mistakes: list[Mistake] = []
    defaults: dict[str, Any] = {}
    with_lines = _LinesReader(read)
    for index, (number, line) in enumerate(lines):
        try:
            row = with_lines(_object(line))
            if "defaults" in row:
                row["defaults"] = with_lines(row["defaults"])
        except ValueError as problem:
            mistakes.append(Mistake(number, "row", str(problem)))
            continue
        except InvalidRequestError as problem:
            mistakes.append(Mistake(number, "lines", problem.said(ROWS)))
            continue
        if index == 0 and "defaults" in row:
            defaults, wrong = _defaults(number, row)
            mistakes += wrong
            continue
        shot, wrong = shot_of(number, {**defaults, **row})
        mistakes += wrong
        if shot is not None:
            shots[number] = shot
    return shots, mistakes


def _gives_defaults(line: bytes) -> bool:
    """Return whether the first line of a manifest gives defaults, so that it is no row."""
    try:
        return "defaults" in _object(line)
    except ValueError:
        return False


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line. The message of a ValueError says what is wrong with the line."""
    try:
        row = read_json(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ValueError("not a text in UTF-8") from None
    except json.JSONDecodeError as problem:
        raise ValueError(f"not JSON (character {problem.colno}: {problem.msg}); a row is one JSON object in one line") from None
    if not isinstance(row, dict):
        raise ValueError("a row is one JSON object with the fields of a shot")
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands twice")
    return fields


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _defaults(number: int, row: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    given = row["defaults"]
    if len(row) > 1 or not isinstance(given, dict):
        return {}, [Mistake(number, "defaults", 'this line is {"defaults": {FIELD: VALUE, ...}} and has nothing else')]
    mistakes = [Mistake(number, f"defaults.{field}", "every row names its own") for field in _OF_ONE_ROW if field in given]
    defaults = {field: value for field, value in given.items() if field not in _OF_ONE_ROW}
    # The voice of the rows that have words.
    stand_in = {"say": "x", **_STAND_IN} if "voice" in defaults and not defaults.keys() & {*_NOT_SPOKEN} else _STAND_IN
    _, wrong = shot_of(number, {**stand_in, **defaults})
    mistakes += [Mistake(number, f"defaults.{mistake.field}", mistake.text) for mistake in wrong]
    # A wrong default is reported once, not again in every row.
    reported = {mistake.field.partition(".")[0] for mistake in wrong}
    return {field: value for field, value in defaults.items() if field not in reported}, mistakes


def shot_of(number: int, row: dict[str, Any]) -> tuple[ShotSpec | None, list[Mistake]]:
    """Return the shot of the fields of one row, or None and what is wrong with the fields.

    Args:
        number: line of the row, for the mistakes.
        row: `id`, `quality`, `say`, `voice`, and the words of a dub.
    """
    mistakes = [
        Mistake(number, field, "is missing: every row has one") for field in ("id", "footage", "output") if row.get(field) is None
    ]
    shot_id, limits = row.get("id"), row.get("quality")
    if shot_id is not None and not (isinstance(shot_id, str) and _SHOT_ID.fullmatch(shot_id)):
        mistakes.append(Mistake(number, "id", f"{_ID}, not {json.dumps(shot_id)[:80]}"))
    quality = Quality()
    try:
        quality = _QUALITY.validate_python(limits if limits is not None else {})
    except ValidationError as problem:
        mistakes += [Mistake(number, *_field_and_text(error)) for error in problem.errors(include_url=False)]
    dub = DubSpec()
    given = {word: value for word, value in row.items() if word not in _OWN}
    mistakes += [Mistake(number, each.field, in_words(each.text, ROWS)) for each in fill(dub, given, words=("id", *ROW, *_OWN[1:]))]
    words: Words | None = None
    try:
        words = _words_of(row)
    except InvalidRequestError as wrong:
        mistakes.append(Mistake(number, wrong.field, wrong.said(ROWS)))
    return (None, mistakes) if mistakes else (ShotSpec(shot_id or "", plain(dub), quality, words), [])


def _words_of(row: Mapping[str, Any]) -> Words | None:
    """Return the words of a row; None: the row has none.

    Raises:
        InvalidRequestError: the words, or the voice, cannot be used, or contradict another field.
    """
    say, voice = row.get("say"), row.get("voice")
    for field, value in (("say", say), ("voice", voice)):
        if value is not None and not isinstance(value, str):
            raise InvalidRequestError(f"takes a valid string, not {json.dumps(value)[:80]}", field=field, named=True)
    if say is None:
        if voice and row.get("speech") is None and row.get("lines") is None:
            raise InvalidRequestError("is the voice of say, and the row has no words", field="voice", named=True)
        return None
    if both := [field for field in _NOT_SPOKEN if row.get(field)]:
        raise InvalidRequestError(f"a row has say or {both[0]}: leave one of them out", field="say")
    check_words(say, voice or "")
    return Words(say=say, voice=voice or "")


def _field_and_text(error: Any) -> tuple[str, str]:
    """Return field and text of an error of pydantic about thresholds."""
    field = ".".join(str(part) for part in ("quality", *error["loc"]))
    if error["type"] == "extra_forbidden":
        return field[:80], f"is no field of a row; there are: {', '.join(Quality.model_fields)}"
    return field, f"{error['msg'].replace('Input should be', 'takes')}, not {json.dumps(error['input'])[:80]}"


def _with_absolute_paths(shots: Mapping[int, ShotSpec], folder: str) -> tuple[dict[int, ShotSpec], list[Mistake]]:
    """Return shots whose relative paths begin at a folder, and the paths that no row can hold."""
    absolute: dict[int, ShotSpec] = {}
    mistakes = []
    for line, shot in shots.items():
        uris = {field: _absolute(uri, folder) for field, uri in shot.uris.items()}
        # A folder of the manifest's own path may have such a name, and a batch is stored as UTF-8.
        wrong = [field for field, uri in uris.items() if not _is_utf8(uri)]
        mistakes += [
            Mistake(line, field, f"{uris[field]!r} has a folder whose name is no text in UTF-8: rename the folder")
            for field in wrong
        ]
        if not wrong:
            absolute[line] = shot.with_uris(uris)
    return absolute, mistakes


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absolute(uri: str, folder: str) -> str:
    local = local_path(uri)
    return uri if local is None else os.path.normpath(os.path.join(folder, local))


def manifest_or_mistakes(
    path: Path,
    *,
    name: str | None = None,
    method_of: MethodOf | None = None,
    check_files: bool = True,
    speaks: CheckWords = lambda shot: None,
) -> Manifest | tuple[str, ...]:
    """Return a checked manifest, or all mistakes of its rows.

    Args:
        path: file of the manifest.
        name: name of the batch; None: made from the name of the file.
        method_of: returns the method that dubs a shot, and raises ActorError, ConsentRefusedError or InvalidRequestError if
            the actor of the shot is missing or cannot be dubbed so; None: actors are not looked up.
        check_files: whether the files of the rows are looked at. False suits the workers of a batch that was checked before.
        speaks: see `CheckWords`.

    Returns:
        The manifest; or one line for each mistake, such as `SHOTS.jsonl:17: footage: no such file /plates/a.mov`, in the order of
        the rows.

    Raises:
        InvalidRequestError: the file cannot be read, has no rows, has too many rows, the name is not allowed, or the asset manager
            cannot be loaded.
        StorageRefusedError, BackendUnavailableError: the store of a URL refuses, or does not answer; or the asset manager fails.
    """
    named = batch_name(path.stem if name is None else name, given=name is not None)
    folder = os.path.dirname(os.path.abspath(path))
    shots, mistakes = shots_by_line(_content(path), shown_name=str(path), read=lambda uri: lines_at(_absolute(uri, folder)))
    shots, unresolved = _with_locations(shots)
    shots, unnamed = _with_absolute_paths(shots, folder)
    unresolved += unnamed
    reported = {(mistake.line, mistake.field) for mistake in unresolved}
    further = row_mistakes(shots, method_of, check_files=check_files) + _unspoken(shots, speaks)
    mistakes += [*unresolved, *(mistake for mistake in further if (mistake.line, mistake.field) not in reported)]
    if mistakes:
        return tuple(f"{path}:{mistake.line}: {mistake.field}: {mistake.text}" for mistake in in_order(mistakes))
    if not shots:
        raise InvalidRequestError(
            f"{path}: the manifest has no rows: write one JSON object a line, one for each shot", field="manifest"
        )
    return manifest_of(named, shots.values())


def _unspoken(shots: Mapping[int, ShotSpec], check: CheckWords) -> list[Mistake]:
    """Return the words that no command can speak."""
    mistakes = []
    for line, shot in shots.items():
        try:
            check(shot)
        except InvalidRequestError as problem:
            mistakes.append(Mistake(line, problem.field, problem.said(ROWS)))
    return mistakes


def _with_locations(shots: Mapping[int, ShotSpec]) -> tuple[dict[int, ShotSpec], list[Mistake]]:
    """Return shots with locations in place of entity references, and a mistake for each entity reference without a location."""
    named = {line: shot.inputs for line, shot in shots.items()}
    resolved = resolve_references(uri for uris in named.values() for uri in uris.values())
    mistakes = [
        Mistake(line, field, resolved.problems[uri])
        for line, uris in named.items()
        for field, uri in uris.items()
        if uri in resolved.problems
    ]
    if not resolved.locations:
        return dict(shots), mistakes
    located = {
        line: {field: resolved.locations[uri] for field, uri in uris.items() if uri in resolved.locations}
        for line, uris in named.items()
    }
    return {line: shot.with_uris(located[line]) for line, shot in shots.items()}, mistakes


def row_mistakes(shots: Mapping[int, ShotSpec], method_of: MethodOf | None, *, check_files: bool) -> list[Mistake]:
    """Return what is wrong with shots whose paths are absolute.

    Args:
        shots: the shots by line.
        method_of, check_files: as `manifest_or_mistakes` takes them.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store of a URL refuses, or does not answer.
    """
    mistakes = option_mistakes(shots, method_of) + repeat_mistakes(shots, follow_links=check_files)
    if not check_files:
        return mistakes
    mistakes += file_mistakes(shots)
    wrong = {mistake.line for mistake in mistakes}
    files = _media_files({line: shot for line, shot in shots.items() if line not in wrong})
    looks = _looked_at(_looks_like, {file.path for file in files})
    mistakes += _media_mistakes(files, looks)
    wrong = {mistake.line for mistake in mistakes}
    mistakes += _colour_mistakes({line: shot for line, shot in shots.items() if line not in wrong})
    mistakes += _picture_mistakes({line: shot for line, shot in shots.items() if line not in wrong}, method_of or _method, looks)
    return mistakes + scene_mistakes({line: shot for line, shot in shots.items() if line not in wrong})


def _picture_mistakes(shots: Mapping[int, ShotSpec], look: MethodOf, looks: Mapping[str, str]) -> Iterator[Mistake]:
    """Yield the shots whose footage is a single picture and whose method needs a video. Only files of this machine are read.

    Pictures are told by their first bytes, or by their names: a batch may have 100,000 videos, and only the worker opens them.

    Args:
        looks: `_looks_like` of each file, by path.
    """
    for line, shot in shots.items():
        dub, path = shot.dub, local_path(shot.dub.footage_uri)
        if path is None or shot.is_sequence or dub.lines or looks[path] != "picture":
            continue
        # Without these, the worker chooses the method by the content of the file.
        if not (dub.method or dub.actor or is_named_like_picture(path)):
            continue
        try:
            check_footage(method_named(look(shot, None)), Path(path), inspect_video(Path(path)))
        except MediaUnsupportedError as problem:
            yield Mistake(line, "footage", problem.said(ROWS))
        except InvalidRequestError as problem:
            yield Mistake(line, problem.field or "method", problem.said(ROWS))


def _colour_mistakes(shots: Mapping[int, ShotSpec]) -> Iterator[Mistake]:
    """Yield what is wrong with the colour of image sequences. Each configuration is read once."""
    checked: dict[OcioSettings, InvalidRequestError | None] = {}
    for line, shot in shots.items():
        if not shot.dub.sequence.ocio:
            continue
        colour = colour_of(shot.dub)
        if colour not in checked:
            try:
                OcioColour(colour)
                checked[colour] = None
            except InvalidRequestError as problem:
                checked[colour] = problem
        if (wrong := checked[colour]) is not None:
            yield Mistake(line, wrong.field, wrong.said(ROWS))


def in_order(mistakes: Iterable[Mistake]) -> Sequence[Mistake]:
    """Return mistakes in the order of the rows."""
    return sorted(mistakes, key=lambda mistake: mistake.line)


def batch_name(text: str, *, given: bool = True) -> str:
    """Return the name of a batch.

    Args:
        text: the name, or any text that a name is made from.
        given: whether the user gave the text as a name. Otherwise characters that a name lacks become hyphens.

    Raises:
        InvalidRequestError: the user's name is not allowed, or no name can be made from the text.
    """
    wanted = text
    if not given:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        wanted = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].rstrip("-")
    try:
        return TypeAdapter(BatchName).validate_python(wanted)
    except ValidationError:
        problem = "{text!r} is no name of a batch" if given else "no name can be made from {text!r}: give {name}"
        form = "; a name has at most 40 small letters, digits and hyphens, and begins and ends with a letter or a digit"
        raise InvalidRequestError(Text(problem + form, text=text[:80], name=Option("batch_id", "NAME")), field="name") from None


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise InvalidRequestError(f"{path}: cannot be read: {reason}", field="manifest") from problem
    if len(content) > MOST_BYTES:
        raise InvalidRequestError(f"{path}: larger than {MOST_BYTES >> 20} MiB: cut the manifest into several", field="manifest")
    return content.removeprefix(b"\xef\xbb\xbf")


class ActorLookup:
    """Looks up the actors and the consent records of shots, each once. All methods block.

    Args:
        actors: the enrolled people.
    """

    def __init__(self, actors: ActorStore) -> None:
        self._actors = actors
        self._answers: dict[str, ActorSummary | ActorError] = {}
        self._asked: dict[ConsentQuestion, ConsentRefusedError | InvalidRequestError | None] = {}

    def method_of(self, shot: ShotSpec, line: LineSpec | None = None) -> str:
        """Return the method that dubs a shot, or one line of its scene.

        Raises:
            ActorError: there is no such actor, or the actor is damaged.
            ConsentRefusedError: a consent record does not allow the shot, or is missing and the installation requires one.
            InvalidRequestError: the actor was enrolled for another method, or project or language are not allowed.
            StorageRefusedError, BackendUnavailableError: the store of a record's URL refuses, or does not answer.
        """
        part = shot.dub if line is None else line
        actor_id, language = actor_of(part), part.language or shot.dub.language
        actor = self._actor(actor_id) if actor_id else None
        self._check_consent(shot, _record_of(part) or _record_of(shot.dub), language, actor)
        if actor is None:
            return method_of(shot.dub)
        if shot.dub.method and combined(shot.dub.method) != actor.method:
            raise InvalidRequestError(
                f"actor {actor.actor_id} is enrolled for {actor.method}, not for {shot.dub.method}: leave method out, or enrol the "
                f"person for {shot.dub.method} under another id",
                field="method",
            )
        return actor.method

    def _check_consent(self, shot: ShotSpec, consent: str | Consent | None, language: str, actor: ActorSummary | None) -> None:
        record = canonical_form(consent) if isinstance(consent, Consent) else consent
        asked = (record, actor.actor_id if actor is not None else None, shot.dub.project, language)
        if asked not in self._asked:
            try:
                self._ask(shot, consent, language, actor)
                self._asked[asked] = None
            except (ConsentRefusedError, InvalidRequestError) as refusal:
                self._asked[asked] = refusal
        answer = self._asked[asked]
        if answer is not None:
            raise answer

    def _ask(self, shot: ShotSpec, consent: str | Consent | None, language: str, actor: ActorSummary | None) -> None:
        use = use_of(shot.dub.project, language)
        consents = self._actors.consents
        record = _readable(consent) if isinstance(consent, str) else consent
        if consent is None or record is not None:
            own, actor_id = (actor.consent, actor.actor_id) if actor is not None else (None, "")
            consents.check_enrolled(own, record, use, shot.id, actor_id=actor_id)

    def _actor(self, actor_id: str) -> ActorSummary:
        if actor_id not in self._answers:
            try:
                actor = self._actors.show(actor_id)
                self._answers[actor_id] = ActorNotReadyError(actor.damage, subject=actor_id) if actor.damage else actor
            except ActorError as missing:
                self._answers[actor_id] = missing
        answer = self._answers[actor_id]
        if isinstance(answer, ActorError):
            raise answer
        return answer


def _readable(uri: str) -> Consent | None:
    """Return the record of a file; None: the file cannot be used, which the check of the files tells."""
    try:
        return consent_at(uri)
    except (InvalidRequestError, ArtefactNotFoundError):
        return None


def _record_of(part: DubSpec | LineSpec) -> str | Consent | None:
    """Return the consent record of a dub or a line, or the path or URL of its file; None: there is none."""
    return consent_from(part.consent) if part.HasField("consent") else part.consent_uri or None
