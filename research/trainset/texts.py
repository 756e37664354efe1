"""Words of a clip: transcripts and times of words from side files, tables and archives."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final

from research.trainset.catalogue import ClipEntry, CorpusSource, TranscriptTable, WordTimes
from services.common.errors import InvalidRequestError

_MAX_TEXT_BYTES: Final = 1 << 20
"""Largest side file of one clip."""
_MAX_TABLE_BYTES: Final = 1 << 28
"""Largest table of transcripts, and most bytes of all files of an archive together."""
_TABLES_KEPT: Final = 4

Word = tuple[str, float, float]
"""A word, its start and its end in seconds from the first sample."""


@dataclass(frozen=True, slots=True)
class ClipText:
    """Words of a clip.

    Attributes:
        transcript: spoken words; empty: unknown.
        words: words with times, without silence; None: unknown.
    """

    transcript: str = ""
    words: tuple[Word, ...] | None = None

    def part(self, start_s: float, end_s: float) -> ClipText:
        """Return what is said in a part of the clip, with times from the part's start. Without times a part has no text."""
        if self.words is None:
            return ClipText()
        words = tuple(
            (word, round(start - start_s, 4), round(end - start_s, 4))
            for word, start, end in self.words
            if start >= start_s and end <= end_s
        )
        return ClipText(" ".join(word for word, _, _ in words), words)


class Texts:
    """Transcripts and word times of the clips of a folder. Tables and archives are read once and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table = lru_cache(_TABLES_KEPT)(self._read_table)
        self._archive = lru_cache(_TABLES_KEPT)(self._read_archive)

    def of(self, entry: ClipEntry) -> ClipText:
        """Return what is said in a clip. A side file that does not exist says nothing.

        Raises:
            InvalidRequestError: a side file, table or archive cannot be read or has a wrong line. The message names it.
        """
        words = self._words(entry, entry.rules.words) if entry.rules is not None and entry.rules.words is not None else None
        transcript = entry.transcript or self._transcript(entry)
        return ClipText(transcript or " ".join(word for word, _, _ in words or ()), words)

    def _transcript(self, entry: ClipEntry) -> str:
        transcripts = entry.rules.transcripts if entry.rules is not None else ""
        if isinstance(transcripts, TranscriptTable):
            path = self._path(entry, transcripts.file)
            return self._table(path, transcripts.line).get(_filled(entry, transcripts.key), "") if path.is_file() else ""
        path = self._path(entry, transcripts) if transcripts else self._folder / PurePosixPath(entry.file).with_suffix(".txt")
        return _one_line(_read(path, _MAX_TEXT_BYTES)) if path.is_file() else ""

    def _words(self, entry: ClipEntry, times: WordTimes) -> tuple[Word, ...] | None:
        if times.archive:
            name = os.path.normpath(_filled(entry, times.file))
            held = self._archive(self._folder / times.archive, PurePosixPath(name).suffix).get(name)
            where, text = f"{times.archive}: {name}", None if held is None else _decoded(held, f"{times.archive}: {name}")
        else:
            path = self._path(entry, times.file)
            where, text = str(path), _read(path, _MAX_TEXT_BYTES) if path.is_file() else None
        return None if text is None else tuple(_timed(text, times, where))

    def _path(self, entry: ClipEntry, pattern: str) -> Path:
        return self._folder / _filled(entry, pattern)

    def _read_table(self, path: Path, line: str) -> dict[str, str]:
        matches = (re.match(line, text) for text in _read(path, _MAX_TABLE_BYTES).splitlines())
        return {match["key"]: _one_line(match["text"] or "") for match in matches if match}

    def _read_archive(self, path: Path, suffix: str) -> dict[str, bytes]:
        """Return the small files of an archive by name, as far as their names have an ending."""
        try:
            if zipfile.is_zipfile(path):
                return _zip_members(path, suffix)
            return _tar_members(path, suffix)
        except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as problem:
            raise InvalidRequestError(f"{path}: not a tar or zip archive that can be read: {problem}", field="corpus") from problem


def _filled(entry: ClipEntry, pattern: str) -> str:
    assert isinstance(entry.rules, CorpusSource)
    return pattern.format_map(entry.rules.path_fields(entry.file))


def _timed(text: str, timing: WordTimes, where: str) -> Iterator[Word]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            start, end, word = line.split()
            times = float(start) / timing.units_per_second, float(end) / timing.units_per_second
        except ValueError as problem:
            raise InvalidRequestError(f"{where}, line {number}: start, end and word were expected", field="corpus") from problem
        if not 0 <= times[0] <= times[1] < float("inf"):
            raise InvalidRequestError(
                f"{where}, line {number}: a word starts at 0 or later, and ends after its start", field="corpus"
            )
        if word not in timing.silence:
            yield (word, round(times[0], 4), round(times[1], 4))


def _zip_members(path: Path, suffix: str) -> dict[str, bytes]:
    members, total = {}, 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and member.filename.endswith(suffix) and member.file_size <= _MAX_TEXT_BYTES:
                total = _counted(total + member.file_size)
                members[os.path.normpath(member.filename)] = archive.read(member)
    return members


def _tar_members(path: Path, suffix: str) -> dict[str, bytes]:
    members, total = {}, 0
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(suffix) and member.size <= _MAX_TEXT_BYTES:
                total = _counted(total + member.size)
                stream = archive.extractfile(member)
                members[os.path.normpath(member.name)] = stream.read() if stream is not None else b""
    return members


def _counted(total: int) -> int:
    if total > _MAX_TABLE_BYTES:
        raise ValueError(f"its text files have more than {_MAX_TABLE_BYTES >> 20} MiB")
    return total


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as problem:
        raise InvalidRequestError(f"{path} cannot be read: {problem.strerror}", field="corpus") from problem
    if len(content) > most:
        raise InvalidRequestError(f"{path} has more than {most >> 20} MiB: too much for a side file", field="corpus")
    return _decoded(content, str(path))


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"{where}: not a text in UTF-8", field="corpus") from problem


def _one_line(text: str) -> str:
    return " ".join(text.split())
