"""Files of blobs: each is written as a whole or not at all, and read in pieces."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from services.common.errors import InvalidRequest

PARTIAL: Final = ".partial-"
"""Beginning of the name of a file that is still being written."""
_COPY_BYTES: Final = 1 << 20


def time_of(facts: Mapping[str, Any]) -> float | None:
    """Return when a file was written, Unix time in seconds, from what the file system says of the file; None where nothing is said.

    A folder says mtime, S3 says LastModified, others say when the file was created.
    """
    for name in ("mtime", "LastModified", "created"):
        told = facts.get(name)
        if isinstance(told, datetime.datetime):
            return (told if told.tzinfo else told.replace(tzinfo=datetime.UTC)).timestamp()
        if isinstance(told, int | float):
            return float(told)
    return None


def write_atomically(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file and its folder. A reader sees the whole file or no file; a failure leaves nothing behind."""
    with _written(path, pieces) as temporary:
        os.replace(temporary, path)


def create_atomically(path: Path, content: bytes) -> bool:
    """Write a file and its folder as `write_atomically` does, unless there is a file, and return whether the file was written.

    Of several processes that call at the same time, one writes the file.
    """
    with _written(path, [content]) as temporary:
        try:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with path.open("xb") as stream:
                    stream.write(content)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _written(path: Path, pieces: Iterable[bytes]) -> Iterator[str]:
    """Give a temporary file with the content beside `path`. If the block fails, or leaves the file there, the file is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            # Without fsync, a machine that loses power could keep the name and lose the bytes.
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o640)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def pieces_of(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a stream in pieces of at most 1 MiB."""
    while piece := stream.read(_COPY_BYTES):
        yield piece


def unchanged(pieces: Iterable[bytes], sha256: str, source: Path) -> Iterator[bytes]:
    """Yield the pieces of a file, and check at the end that they are the bytes of a digest.

    Args:
        pieces: the bytes of the file.
        sha256: digest of the whole file.
        source: the file.

    Raises:
        InvalidRequest: the bytes are others.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise changed_meanwhile(source)


def changed_meanwhile(source: Path) -> InvalidRequest:
    """Return the error for a file that another program wrote to while the file was stored."""
    name = os.path.realpath(source)  # The source may be a descriptor in /proc.
    return InvalidRequest(f"{name} changed while it was stored: store it again when no program writes the file", field="file")


def digest_and_size(file: Path) -> tuple[str, int]:
    """Return the sha256 of a file, 64 hexadecimal digits, and the number of bytes that have this digest."""
    with file.open("rb") as stream:
        return sha256_of(stream), stream.tell()


def sha256_of(stream: IO[bytes]) -> str:
    """Return the sha256 of the rest of a stream, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in pieces_of(stream):
        digest.update(piece)
    return digest.hexdigest()
