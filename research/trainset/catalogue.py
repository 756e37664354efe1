"""The clips of a training set: from a catalogue.csv, from a corpus file, or all videos and recordings of a folder.

Corpus files are TOML files that say which files belong to a source, who speaks, and where the words are.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.errors import InvalidRequestError

SPEAKER: Final = "speaker"
_OF_EVERY_PATH: Final = frozenset({"folder", "stem"})
CATALOGUE: Final = "catalogue.csv"
TRAIN, VALIDATION = "train", "val"
BY_SPEAKER: Final = ""
"""Split of clips for which nothing states a split."""
_WITHOUT_PIXELS: Final = "train_motion"
"""Use of clips that teach sound and landmarks, but not pixels."""
VIDEOS: Final = frozenset({".mp4", ".mov", ".mkv", ".mpg", ".mpeg", ".mxf", ".avi", ".webm", ".m4v", ".ts"})
RECORDINGS: Final = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"})
_COLUMNS: Final = frozenset({"file", "use", "speaker", "licence", "transcript"})
_MAX_NAME_BYTES: Final = 180
"""Longest name of a clip in a training set. A file system takes 255 bytes, and endings are added."""


def _regex_with(*groups: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            named = re.compile(text).groupindex
        except re.error as problem:
            raise ValueError(f"not a regular expression: {problem}") from problem
        missing = [group for group in groups if group not in named]
        if missing:
            raise ValueError(f"the regular expression needs a group (?P<{missing[0]}>...)")
        return text

    return AfterValidator(check)


def _path_pattern(text: str) -> str:
    try:
        re.compile(_regex(text))
    except re.error as problem:
        raise ValueError(f"{text!r} is no pattern of paths: {problem}") from problem
    return text


_PathPattern = Annotated[str, AfterValidator(_path_pattern)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TranscriptTable(_Table):
    """Text file with one transcript a line, such as a table of a whole corpus.

    Attributes:
        file: pattern of the file's path below the folder of clips.
        line: regular expression of a line, with the groups `key` and `text`. A clip's line is the one whose key is the stem of the
            clip's file, or what `key` says.
        key: pattern of the key of a clip.
    """

    file: str = Field(min_length=1)
    line: Annotated[str, _regex_with("key", "text")]
    key: str = "{stem}"


class WordTimes(_Table):
    """Text files with the times of words: lines of start, end and word, separated by blanks.

    Attributes:
        file: pattern of the file's path below the folder of clips, or of the member's name in the archive.
        archive: path of a tar or zip archive below the folder of clips; empty: the files lie in the folder itself.
        units_per_second: unit of the times.
        silence: words that mean silence.
    """

    file: str = Field(min_length=1)
    archive: str = ""
    units_per_second: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    silence: tuple[str, ...] = ()


class CorpusSource(_Table):
    """One table `[[source]]`.

    Patterns of paths take `*` (within a folder), `**` (any folders), `?` and `[...]`. Patterns of side files take `{folder}` and
    `{stem}` of the clip's path, and the named groups of the regular expression `speaker`.

    Attributes:
        name: name of the corpus. Speakers are called NAME-SPEAKER.
        speaker: regular expression with a group `speaker`, searched in a clip's path; empty: the folder names the speaker.
        transcripts: pattern of a text file beside each clip, or a table; empty: the clip's path with the ending .txt.
        weight: how often a clip is drawn, relative to clips of other sources.
        narrow: whether the corpus has one kind of sentence or of speaking, such as commands of six words with silence around them.
            The networks of motion then learn apart what holds in this corpus alone.
        has_pixels: whether networks may learn from the pixels.
        language: language that is spoken (BCP 47), such as `en` or `zh`; empty: unknown.
        splits: patterns of paths by split. The first split that matches counts; a clip that none matches is split by speaker.
    """

    name: str = Field(pattern=r"^[^/\\\x00-\x1f]+$", max_length=80)
    files: tuple[_PathPattern, ...] = Field(min_length=1)
    licence: str = ""
    speaker: Annotated[str, _regex_with(SPEAKER)] | None = None
    transcripts: str | TranscriptTable = ""
    words: WordTimes | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    narrow: bool = False
    has_pixels: bool = True
    language: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$", max_length=35)
    splits: Mapping[str, tuple[_PathPattern, ...]] = {}

    @model_validator(mode="after")
    def _fields_allowed(self) -> CorpusSource:
        table = self.transcripts if isinstance(self.transcripts, TranscriptTable) else None
        patterns = {
            "transcripts.file" if table else "transcripts": table.file if table else str(self.transcripts),
            "transcripts.key": table.key if table else "",
            "words.file": self.words.file if self.words else "",
        }
        allowed = _OF_EVERY_PATH | set(re.compile(self.speaker or "").groupindex)
        for setting, pattern in patterns.items():
            try:
                fields = [field for field in string.Formatter().parse(pattern) if field[1] is not None]
            except ValueError as problem:
                raise ValueError(f"{setting}: {pattern!r}: {problem}") from problem
            for _, name, spec, conversion in fields:
                if name not in allowed:
                    raise ValueError(f"{setting}: {{{name}}} is unknown; there are {', '.join(sorted(allowed))}")
                if spec or conversion:
                    raise ValueError(f"{setting}: {pattern!r}: write {{{name}}} without a conversion and without a format")
        return self

    def takes(self, file: str) -> bool:
        """Return whether a path below the folder of clips belongs to this source."""
        return any(matches(pattern, file) for pattern in self.files)

    def split_of(self, file: str) -> str:
        """Return the split that the table states for a path; empty: none."""
        return next((name for name, patterns in self.splits.items() if any(matches(each, file) for each in patterns)), "")

    def speaker_of(self, file: str) -> str | None:
        """Return the speaker's name by the regular expression; None: there is no such expression.

        Raises:
            InvalidRequestError: the expression does not match.
        """
        if self.speaker is None:
            return None
        match = re.search(self.speaker, file)
        if match is None or match[SPEAKER] is None:
            raise InvalidRequestError(
                f"source {self.name}: the regular expression of `speaker` does not match the path", field="corpus"
            )
        return f"{self.name}-{match[SPEAKER]}"

    def path_fields(self, file: str) -> dict[str, str]:
        """Return what patterns of side files may name of a clip: `folder`, `stem`, and the groups of the expression `speaker`."""
        path = PurePosixPath(file)
        match = re.search(self.speaker, file) if self.speaker else None
        groups = {name: text or "" for name, text in match.groupdict().items()} if match else {}
        unmatched = dict.fromkeys(re.compile(self.speaker or "").groupindex, "")
        return {**unmatched, **groups, "folder": path.parent.as_posix(), "stem": path.stem}


class Corpus(_Table):
    """A corpus file: tables `[[source]]`. The first table that takes a path counts."""

    source: tuple[CorpusSource, ...] = Field(min_length=1)

    def source_of(self, file: str) -> CorpusSource | None:
        """Return the source of a path below the folder of clips; None: there is none."""
        return next((source for source in self.source if source.takes(file)), None)


def read_corpus(path: Path, folder: Path) -> Corpus:
    """Return the corpus that a TOML file describes.

    Args:
        path: the TOML file.

    Raises:
        InvalidRequestError: the file is missing or not TOML, a field is unknown, missing or wrong, or an archive is missing. The
            message names file and field.
    """
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InvalidRequestError(f"{path}: not a TOML file: {problem}", field="corpus") from problem
    try:
        corpus = Corpus.model_validate(given)
    except ValidationError as error:
        # If a field is a text or a table, the reason inside the table is more exact.
        fields = len(error.errors()[0]["loc"][:3])
        first = max((each for each in error.errors() if each["loc"][:fields] == error.errors()[0]["loc"][:3]), key=_depth)
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{path}: {_location(first['loc'])}: {message}", field="corpus") from error
    for number, source in enumerate(corpus.source, 1):
        archive = source.words.archive if source.words else ""
        if archive and not (folder / archive).is_file():
            raise InvalidRequestError(f"{path}: source {number}: words.archive: {folder / archive}: no such file", field="corpus")
    return corpus


def _depth(error: Any) -> int:
    return len(error["loc"])


def _location(steps: tuple[int | str, ...]) -> str:
    """Return the location of a field, such as source 2: words.file. Tables are counted from 1."""
    table = f"source {steps[1] + 1}" if len(steps) > 1 and isinstance(steps[1], int) else ".".join(map(str, steps)) or "the file"
    fields = [str(step) for step in steps[2:] if step not in ("str", TranscriptTable.__name__)]
    return ": ".join([table, ".".join(fields)]) if fields and table.startswith("source ") else table


def matches(pattern: str, file: str) -> bool:
    """Return whether a path with forward slashes fits a pattern of `*`, `**`, `?` and `[...]`."""
    return re.fullmatch(_regex(pattern), file) is not None


def _regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meanings.get(part) or (part.replace("[!", "[^") if part.startswith("[") and part.endswith("]") else re.escape(part))
        for part in parts
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipEntry:
    """One clip of the folder.

    Attributes:
        file: path below the folder, with forward slashes.
        source: name of the corpus.
        speaker: name of the person in the clip; clips of one person have one name.
        split: `train`, `val` or another split; BY_SPEAKER: nothing states a split.
        licence: licence of the clip; empty: unknown.
        transcript: spoken words that the catalogue states; empty: none.
        has_pixels: whether networks may learn from the pixels.
        weight: how often the clip is drawn, relative to other clips.
        narrow: whether the corpus has one kind of sentence.
        language: language that is spoken (BCP 47); empty: unknown.
        rules: table of the corpus file; None: no table takes the clip.
    """

    file: str
    source: str
    speaker: str
    split: str = BY_SPEAKER
    licence: str = ""
    transcript: str = ""
    has_pixels: bool = True
    weight: float = 1.0
    narrow: bool = False
    language: str = ""
    rules: CorpusSource | None = None

    @property
    def is_video(self) -> bool:
        """Whether the file's ending is that of a video."""
        return PurePosixPath(self.file).suffix.lower() in VIDEOS

    @property
    def name(self) -> str:
        """The clip's name in the training set. Different paths have different names."""
        name = self.file.replace("/", "__")
        if name.replace("__", "/") == self.file and len(name.encode()) <= _MAX_NAME_BYTES:
            return name
        digest = hashlib.sha256(self.file.encode()).hexdigest()[:16]
        return f"{name.encode()[: _MAX_NAME_BYTES - 20].decode(errors='ignore')}.{digest}"


@dataclass(slots=True)
class Listing:
    """The clips of a folder.

    Attributes:
        entries: clips, ordered by file.
        refused: by file, why a clip cannot be taken.
    """

    entries: list[ClipEntry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def list_clips(folder: Path, splits: frozenset[str], corpus: Corpus | None = None) -> Listing:
    """Return the clips of a folder, ordered by file.

    With a catalogue.csv (columns file, use, speaker, licence, transcript, and language if it is known; others are ignored): its
    rows that name a video or a recording. The use `train_motion` is the split `train` without pixels. A corpus file adds what the
    catalogue leaves open. A row without a speaker that no corpus table takes is a person of its own, whatever its folder.
    Without a catalogue: the files that a corpus file takes; without a corpus file, every video and recording below the folder. The
    speaker is then what the corpus table says, otherwise the first sub-folder, or the file itself if there is no sub-folder.

    Args:
        splits: splits to take. Clips for which nothing states a split are always taken.
        corpus: description of the folder.

    Raises:
        InvalidRequestError: there is no such folder, the catalogue lacks a column, or there is no clip.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder}: no such folder; check the path", field="folder")
    catalogue = folder / CATALOGUE
    listing = Listing()
    if catalogue.is_file():
        _take_rows(listing, folder, catalogue, splits, corpus)
    else:
        _take_files(listing, folder, splits, corpus)
    listing.entries.sort(key=lambda entry: entry.file)
    if not listing.entries:
        first = next((f"; {file}: {why}" for file, why in listing.refused.items()), "")
        raise InvalidRequestError(
            f"{folder}: no video or recording of the splits {', '.join(sorted(splits))}{first}", field="folder"
        )
    return listing


def _take_rows(listing: Listing, folder: Path, catalogue: Path, splits: frozenset[str], corpus: Corpus | None) -> None:
    listed: set[str] = set()
    for row in _catalogue_rows(catalogue):
        file, use = row["file"], row["use"]
        rules = corpus.source_of(file) if corpus is not None else None
        split = TRAIN if use == _WITHOUT_PIXELS else use or (rules.split_of(file) if rules else BY_SPEAKER)
        if split not in splits and split != BY_SPEAKER:
            continue
        why = _problem(folder, file) or ("the catalogue lists the file twice" if file in listed else "")
        listed.add(file)
        if why:
            listing.refused[file] = why
            continue
        try:
            speaker = row["speaker"] or (_speaker(file, rules) if rules else file.removesuffix(PurePosixPath(file).suffix))
        except InvalidRequestError as problem:
            listing.refused[file] = problem.message
            continue
        listing.entries.append(
            ClipEntry(
                file=file,
                source=rules.name if rules else folder.resolve().name,
                speaker=speaker,
                split=split,
                licence=row["licence"] or (rules.licence if rules else ""),
                transcript=" ".join(row["transcript"].split()),
                has_pixels=use != _WITHOUT_PIXELS and (rules is None or rules.has_pixels),
                weight=rules.weight if rules else 1.0,
                narrow=rules is not None and rules.narrow,
                language=row.get("language") or (rules.language if rules else ""),
                rules=rules,
            )
        )


def _catalogue_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            missing = _COLUMNS - set(reader.fieldnames or ())
            if missing:
                raise InvalidRequestError(f"{path} lacks the columns {', '.join(sorted(missing))}", field="folder")
            # One file has one path: a/b.mkv, also where the catalogue says ./a/b.mkv or a//b.mkv.
            rows = ({**row, "file": PurePosixPath(row["file"]).as_posix()} for row in reader)
            return [row for row in rows if PurePosixPath(row["file"]).suffix.lower() in VIDEOS | RECORDINGS]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InvalidRequestError(f"{path}: not a table of comma-separated values in UTF-8: {problem}", field="folder") from problem


def _take_files(listing: Listing, folder: Path, splits: frozenset[str], corpus: Corpus | None) -> None:
    for file in _media_below(folder):
        rules = corpus.source_of(file) if corpus is not None else None
        split = rules.split_of(file) if rules else BY_SPEAKER
        if (corpus is not None and rules is None) or (split not in splits and split != BY_SPEAKER):
            continue
        try:
            speaker = _speaker(file, rules)
            file.encode()
        except InvalidRequestError as problem:
            listing.refused[file] = problem.message
            continue
        except UnicodeEncodeError:
            listing.refused[file] = "the name is not text in UTF-8; rename the file"
            continue
        listing.entries.append(
            ClipEntry(
                file=file,
                source=rules.name if rules else folder.resolve().name,
                speaker=speaker,
                split=split,
                licence=rules.licence if rules else "",
                has_pixels=rules is None or rules.has_pixels,
                weight=rules.weight if rules else 1.0,
                narrow=rules is not None and rules.narrow,
                language=rules.language if rules else "",
                rules=rules,
            )
        )


def _speaker(file: str, rules: CorpusSource | None) -> str:
    """Return the speaker that a corpus table states, otherwise the first folder, or the file itself if there is no folder.

    Raises:
        InvalidRequestError: the table's expression does not match.
    """
    path = PurePosixPath(file)
    return (rules and rules.speaker_of(file)) or (path.parts[0] if len(path.parts) > 1 else path.stem)


def _media_below(folder: Path) -> Iterable[str]:
    """Yield videos and recordings, without hidden files and folders."""
    # rglob would end at the first folder that may not be read.
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(above) / name
            if not name.startswith(".") and path.suffix.lower() in VIDEOS | RECORDINGS and path.is_file():
                yield path.relative_to(folder).as_posix()


def _problem(folder: Path, file: str) -> str:
    """Return why a catalogue's path cannot be used; an empty text where the path can be used."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        return "the catalogue names a file outside of the folder"
    return "" if (folder / file).is_file() else "no such file"
