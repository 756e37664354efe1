"""Descriptions of corpora: TOML files that say which files belong to a source, who speaks, and where the words are."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.errors import InvalidRequest

SPEAKER: Final = "speaker"
_OF_EVERY_PATH: Final = frozenset({"folder", "stem"})


def _regex_with(*groups: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            found = re.compile(text).groupindex
        except re.error as problem:
            raise ValueError(f"not a regular expression: {problem}") from problem
        missing = [group for group in groups if group not in found]
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


class Source(_Table):
    """One table `[[source]]`.

    Patterns of paths take `*` (within a folder), `**` (any folders), `?` and `[...]`. Patterns of side files take `{folder}` and
    `{stem}` of the clip's path, and the named groups of the regular expression `speaker`.

    Attributes:
        name: name of the corpus. Speakers are called NAME-SPEAKER.
        files: patterns of the clips' paths.
        licence: licence of the clips.
        speaker: regular expression with a group `speaker`, searched in a clip's path; empty: the folder names the speaker.
        transcripts: pattern of a text file beside each clip, or a table; empty: the clip's path with the ending .txt.
        words: times of the words.
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
    def _known_places(self) -> Source:
        table = self.transcripts if isinstance(self.transcripts, TranscriptTable) else None
        patterns = {
            "transcripts.file" if table else "transcripts": table.file if table else str(self.transcripts),
            "transcripts.key": table.key if table else "",
            "words.file": self.words.file if self.words else "",
        }
        known = _OF_EVERY_PATH | set(re.compile(self.speaker or "").groupindex)
        for place, pattern in patterns.items():
            try:
                fields = [field for field in string.Formatter().parse(pattern) if field[1] is not None]
            except ValueError as problem:
                raise ValueError(f"{place}: {pattern!r}: {problem}") from problem
            for _, name, spec, conversion in fields:
                if name not in known:
                    raise ValueError(f"{place}: {{{name}}} is unknown; there are {', '.join(sorted(known))}")
                if spec or conversion:
                    raise ValueError(f"{place}: {pattern!r}: write {{{name}}} without a conversion and without a format")
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
            InvalidRequest: the expression does not match.
        """
        if self.speaker is None:
            return None
        found = re.search(self.speaker, file)
        if found is None or found[SPEAKER] is None:
            raise InvalidRequest(f"source {self.name}: the regular expression of `speaker` does not match the path", field="corpus")
        return f"{self.name}-{found[SPEAKER]}"

    def places(self, file: str) -> dict[str, str]:
        """Return what patterns of side files may name of a clip: `folder`, `stem`, and the groups of the expression `speaker`."""
        path = PurePosixPath(file)
        found = re.search(self.speaker, file) if self.speaker else None
        groups = {name: text or "" for name, text in found.groupdict().items()} if found else {}
        unmatched = dict.fromkeys(re.compile(self.speaker or "").groupindex, "")
        return {**unmatched, **groups, "folder": path.parent.as_posix(), "stem": path.stem}


class Corpus(_Table):
    """A corpus file: tables `[[source]]`. The first table that takes a path counts."""

    source: tuple[Source, ...] = Field(min_length=1)

    def source_of(self, file: str) -> Source | None:
        """Return the source of a path below the folder of clips; None: there is none."""
        return next((source for source in self.source if source.takes(file)), None)


def read_corpus(path: Path, folder: Path) -> Corpus:
    """Return the corpus that a TOML file describes.

    Args:
        path: the TOML file.
        folder: folder of the clips.

    Raises:
        InvalidRequest: the file is missing or not TOML, a field is unknown, missing or wrong, or an archive is missing. The message
            names file and field.
    """
    try:
        given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InvalidRequest(f"{path}: not a TOML file: {problem}", field="corpus") from problem
    try:
        corpus = Corpus.model_validate(given)
    except ValidationError as error:
        # Of a field that is a text or a table, the reason inside the table says more.
        fields = len(error.errors()[0]["loc"][:3])
        first = max((each for each in error.errors() if each["loc"][:fields] == error.errors()[0]["loc"][:3]), key=_depth)
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"{path}: {_place(first['loc'])}: {message}", field="corpus") from error
    for number, source in enumerate(corpus.source, 1):
        archive = source.words.archive if source.words else ""
        if archive and not (folder / archive).is_file():
            raise InvalidRequest(f"{path}: source {number}: words.archive: {folder / archive}: no such file", field="corpus")
    return corpus


def _depth(error: Any) -> int:
    return len(error["loc"])


def _place(steps: tuple[int | str, ...]) -> str:
    """Return the place of a field, such as source 2: words.file. Tables are counted from 1."""
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
