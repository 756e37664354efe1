"""Files that are written as a whole or not at all, folders that one process at a time writes to, and errors of a full disk."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from services.common.errors import DubstageError, InvalidRequest, StorageFull

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers. For the user, a quota or a file size limit is a full disk."""


@contextmanager
def translating_full_disk(message: str, subject: Path) -> Iterator[None]:
    """Translate errors of a full disk, and of no other kind.

    Args:
        message: what is full, and what the user can do.
        subject: the file or folder that has no space.

    Raises:
        StorageFull: no space is left.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno not in FULL_DISK:
            raise
        raise StorageFull(message, subject=str(subject)) from problem


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
        sha256: digest of the whole file.

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


_LOCK: Final = ".lock"
_held: Final[set[int]] = set()
"""Descriptors of the locks that this process holds."""


def make_folder(folder: Path) -> None:
    """Create a folder and the folders above, unless they are there.

    Raises:
        InvalidRequest: the folder cannot be created, or a file is in its place.
        StorageFull: no space is left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as problem:
        raise InvalidRequest(
            f"{folder} cannot be written: it is a file, and a folder was expected; choose another path", field="output"
        ) from problem
    except OSError as problem:
        raise _not_writable(folder, problem) from problem


@contextmanager
def locked_folder(folder: Path, in_use: str) -> Iterator[None]:
    """Create a folder, and keep other processes out for as long as the context is open. The lock ends with this process.

    Args:
        folder: the folder. Its lock file stays.
        in_use: what the user is told if another process is in the folder.

    Raises:
        InvalidRequest: the folder cannot be written, or another process holds the lock.
        StorageFull: no space is left.
    """
    make_folder(folder)
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as problem:
        raise _not_writable(folder, problem) from problem
    try:
        _held.add(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise InvalidRequest(in_use, field="output") from problem
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        if lock in _held:
            _held.remove(lock)
            os.close(lock)


def _not_writable(folder: Path, problem: OSError) -> DubstageError:
    if problem.errno in FULL_DISK:
        return StorageFull(f"no space left in {folder}: free some, or choose another folder", subject=str(folder))
    return InvalidRequest(f"{folder} cannot be written: {problem.strerror}; choose another folder", field="output")


def _let_go() -> None:
    for lock in _held:
        os.close(lock)
    _held.clear()


# A forked worker that outlives this process for some seconds would hold the lock against the process that goes on.
os.register_at_fork(after_in_child=_let_go)
