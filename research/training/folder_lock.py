"""Folders of training runs and training sets: their creation, and the lock of a folder in which one process works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import DubstageError, InvalidRequestError, StorageFullError
from services.common.files import FULL_DISK
from services.common.locks import open_locked

_LOCK: Final = ".lock"
_held: Final[set[int]] = set()
"""Descriptors of the locks of folders that this process holds."""


def make_folder(folder: Path) -> None:
    """Create a folder and the folders above, unless they are there.

    Raises:
        InvalidRequestError: the folder cannot be created, or a file is in its place.
        StorageFullError: no space is left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as problem:
        raise InvalidRequestError(
            f"{folder} cannot be written: it is a file, and a folder was expected; choose another path", field="output"
        ) from problem
    except OSError as problem:
        raise _not_writable(folder, problem) from problem


def _not_writable(folder: Path, problem: OSError) -> DubstageError:
    """Return the error for a folder that cannot be written."""
    if problem.errno in FULL_DISK:
        return StorageFullError(f"no space left in {folder}: free some, or choose another folder", subject=str(folder))
    return InvalidRequestError(f"{folder} cannot be written: {problem.strerror}; choose another folder", field="output")


@contextmanager
def locked_folder(folder: Path, in_use: str) -> Iterator[None]:
    """Create a folder, and keep other processes out for as long as the context is open. The lock ends with this process.

    Args:
        folder: the folder. Its lock file stays.
        in_use: what the user is told if another process is in the folder.

    Raises:
        InvalidRequestError: the folder cannot be written, or another process holds the lock.
        StorageFullError: no space is left.
    """
    make_folder(folder)
    try:
        lock = open_locked(folder / _LOCK, mode=0o640)
    except OSError as problem:
        raise _not_writable(folder, problem) from problem
    if lock is None:
        raise InvalidRequestError(in_use, field="output")
    _held.add(lock)
    try:
        yield
    finally:
        if lock in _held:
            _held.remove(lock)
            os.close(lock)


def _let_go() -> None:
    for lock in _held:
        os.close(lock)
    _held.clear()


# A forked worker that outlives this process for some seconds would hold the lock against the process that goes on.
os.register_at_fork(after_in_child=_let_go)
