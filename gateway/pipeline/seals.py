"""Files of a job that say themselves whether they are whole: what does not fit its length and digest is made anew."""

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
"""Counts up with every change of what lies in a job's folder: notes of another layout are not read, their passes are done anew."""

_MOST_BYTES: Final = 64 << 20
"""Longest note that is read: shot cuts of some eight million frames."""
_PIECE: Final = 1 << 20


def new_digest() -> hashlib.blake2b:
    """The digest that all files of a job are checked with: BLAKE2b of 256 bits."""
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
        """Read a file from its beginning to its end; None where there is no file."""
        try:
            with path.open("rb", buffering=0) as file:
                return cls.of_descriptor(file.fileno())
        except (FileNotFoundError, IsADirectoryError):
            return None

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Self:
        """Read all bytes of an open file; its position stays."""
        digest, size = new_digest(), 0
        while piece := os.pread(descriptor, _PIECE, size):
            digest.update(piece)
            size += len(piece)
        return cls(size, digest.hexdigest())

    @classmethod
    def parsed(cls, value: object) -> Self | None:
        """The seal of a note, written as [size, digest]; None where `value` is none."""
        match value:
            case [int(size), str(digest)] if size >= 0 and not isinstance(size, bool):
                return cls(size, digest)
        return None


def write_note(path: Path, note: Mapping[str, Any]) -> None:
    """Write a small JSON object with its digest. A reader sees the whole file or the one before it.

    Raises:
        StorageFull: no space is left; the file is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    with job_folder(path.parent):
        partial.write_text(json.dumps({"layout": LAYOUT, "blake2b": _digest_of(note), "note": dict(note)}), encoding="utf-8")
        os.replace(partial, path)


def read_note(path: Path) -> dict[str, Any] | None:
    """The JSON object that `write_note` wrote; None where there is none, or where the file is not what was written."""
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
