"""Folders that one process at a time writes to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import DubstageError, InvalidRequest, StorageFull
from services.common.store.full_disk import FULL_DISK

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
