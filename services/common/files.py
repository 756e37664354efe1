"""Files that are written as a whole or not at all, and errors of a full disk."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from services.common.errors import InvalidRequestError, StorageFullError

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers. For the user, a quota or a file size limit is a full disk."""
PARTIAL: Final = ".partial-"
"""Beginning of the name of a file that is still being written."""
BLOB_MODE: Final = 0o640
"""Permissions of files in stores, whatever the umask."""
_COPY_BYTES: Final = 1 << 20


@contextmanager
def translating_full_disk(message: str, subject: Path) -> Iterator[None]:
    """Translate errors of a full disk, and of no other kind.

    Args:
        message: what is full, and what the user can do.
        subject: the file or folder that has no space.

    Raises:
        StorageFullError: no space is left.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in FULL_DISK:
            raise
        raise StorageFullError(message, subject=str(subject)) from problem


def time_of(facts: Mapping[str, Any]) -> float | None:
    """Return when a file was written, Unix time in seconds, from what the file system says of the file; None where nothing is said.

    A folder says mtime, S3 says LastModified, others say when the file was created.
    """
    for name in ("mtime", "LastModified", "created"):
        written = facts.get(name)
        if isinstance(written, datetime.datetime):
            return (written if written.tzinfo else written.replace(tzinfo=datetime.UTC)).timestamp()
        if isinstance(written, int | float):
            return float(written)
    return None


def write_whole(path: Path, content: bytes | Iterable[bytes], *, mode: int | None = None, parents: bool = False) -> Path:
    """Write a file under a temporary name, then give it its own name, and return the path.

    A reader sees the earlier file or the whole new one. Several processes may write the same file at the same time.

    Args:
        path: the file.
        content: the bytes of the file, or pieces of them.
        mode: permissions of the file, whatever the umask; None: those that the umask leaves.
        parents: whether the folders above are created.

    Raises:
        OSError: the file cannot be written. An earlier file stays, and nothing of the new file is left; the same holds for errors
            of the iteration over `content`.
    """
    with _written(path, content, mode, parents) as partial:
        os.replace(partial, path)
    return path


def create_whole(path: Path, content: bytes, *, mode: int | None = None, parents: bool = False) -> bool:
    """Write a file as `write_whole` does, unless there is a file, and return whether the file was written.

    Of several processes that call at the same time, one writes the file.

    Raises:
        OSError: the file cannot be written.
    """
    with _written(path, content, mode, parents) as partial:
        try:
            try:
                os.link(partial, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with _new_file(path, mode) as stream:
                    stream.write(content)
        except FileExistsError:
            return False
    return True


@contextmanager
def _written(path: Path, content: bytes | Iterable[bytes], mode: int | None, parents: bool) -> Iterator[Path]:
    """Give a temporary file with the content beside `path`. If the block fails, or leaves the file there, the file is removed."""
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    try:
        with _new_file(partial, mode) as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
            stream.flush()
            # Without fsync, a machine that loses power could keep the name and lose the bytes.
            os.fsync(stream.fileno())
        yield partial
    finally:
        with contextlib.suppress(OSError):  # the folder may be none
            partial.unlink()


def _new_file(path: Path, mode: int | None) -> IO[bytes]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode)
    if mode is not None:
        os.fchmod(handle, mode)
    return os.fdopen(handle, "wb")


def pieces_of(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a stream in pieces of at most 1 MiB."""
    while piece := stream.read(_COPY_BYTES):
        yield piece


def unchanged(pieces: Iterable[bytes], sha256: str, source: Path) -> Iterator[bytes]:
    """Yield the pieces of a file, and check at the end that they are the bytes of a digest.

    Args:
        sha256: digest of the whole file.

    Raises:
        InvalidRequestError: the bytes are others.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise changed_meanwhile(source)


def changed_meanwhile(source: Path) -> InvalidRequestError:
    """Return the error for a file that another program wrote to while the file was stored."""
    name = os.path.realpath(source)  # The source may be a descriptor in /proc.
    return InvalidRequestError(f"{name} changed while it was stored: store it again when no program writes the file", field="file")


def digest_and_size(file: Path) -> tuple[str, int]:
    """Return the sha256 of a file, 64 hexadecimal digits, and the number of bytes that have this digest."""
    with file.open("rb") as stream:
        return sha256_of(stream), stream.tell()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file of any size, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(stream: IO[bytes]) -> str:
    """Return the sha256 of the rest of a stream, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for piece in pieces_of(stream):
        digest.update(piece)
    return digest.hexdigest()
