"""Length and digest of a job's files. A file that does not match its seal is made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from gateway.pipeline.disk import job_folder

LAYOUT: Final = 2
"""Version of the files in a job's folder. Notes of another version are not read, and their passes are done again."""

_MOST_BYTES: Final = 64 << 20
"""Longest note that is read, bytes: shot cuts of about eight million frames."""
_PIECE: Final = 1 << 20


def new_digest() -> hashlib.blake2b:
    """Return a new digest of the kind that all files of a job are checked with: BLAKE2b of 256 bits."""
    return hashlib.blake2b(digest_size=32)


@dataclass(frozen=True, slots=True)
class Seal:
    """Length and digest of a finished file.

    Attributes:
        size_bytes: length of the file.
        blake2b: digest of all bytes, 64 hexadecimal digits.
    """

    size_bytes: int
    blake2b: str

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Return the seal of a file, read from beginning to end; None: there is no file."""
        try:
            with path.open("rb", buffering=0) as file:
                return cls.of_descriptor(file.fileno())
        except (FileNotFoundError, IsADirectoryError):
            return None

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Self:
        """Return the seal of an open file. The position of the file does not change."""
        digest, size = new_digest(), 0
        while piece := os.pread(descriptor, _PIECE, size):
            digest.update(piece)
            size += len(piece)
        return cls(size, digest.hexdigest())

    @classmethod
    def parsed(cls, value: object) -> Self | None:
        """Return the seal that a note holds as [size, digest]; None: `value` is no seal."""
        match value:
            case [int(size), str(digest)] if size >= 0 and not isinstance(size, bool):
                return cls(size, digest)
        return None


def write_note(path: Path, note: Mapping[str, Any]) -> None:
    """Write a small JSON object with its digest. A reader sees either the whole new file or the old file.

    Raises:
        StorageFull: no space is left; the file has not changed.
    """
    partial = path.with_name(f".{path.name}.partial")
    with job_folder(path.parent):
        partial.write_text(json.dumps({"layout": LAYOUT, "blake2b": _digest_of(note), "note": dict(note)}), encoding="utf-8")
        os.replace(partial, path)


def read_note(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that `write_note` wrote; None: there is no file, or the file is damaged."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    match found:
        case {"layout": int(layout), "blake2b": str(digest), "note": dict(note)}:
            return note if layout == LAYOUT and digest == _digest_of(note) else None
    return None


def _digest_of(note: Mapping[str, Any]) -> str:
    digest = new_digest()
    digest.update(json.dumps(dict(note), sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()
