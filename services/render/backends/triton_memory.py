"""System shared memory for a server on the same host: arrays are written once instead of being sent."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.errors import StorageFull

PREFIX: Final = "dubstage-render-"
"""Prefix of the names of regions, in /dev/shm and at the server."""
_FOLDER: Final = Path("/dev/shm")
_ALIGNMENT: Final = 64


class SharedRegion:
    """File in /dev/shm that this process maps, and that a server maps after the file was registered there.

    The file is locked while this process lives, so a later process recognises the files of a process that was killed.

    Args:
        size: size of the file, bytes.

    Raises:
        StorageFull: /dev/shm has no room for the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        while True:
            self.name = f"{PREFIX}{secrets.token_hex(8)}"
            self._path = _FOLDER / self.name
            self._file = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                break
            # Before the file was locked, another process took it for abandoned and removed it.
            os.close(self._file)
        try:
            # Reserve the space now: without space, a later write would end the process by a signal.
            os.posix_fallocate(self._file, 0, size)
            self._map = mmap.mmap(self._file, size)
        except OSError as error:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            raise StorageFull(f"no room for {size} bytes in {_FOLDER}: {error.strerror}", subject=str(_FOLDER)) from error

    def write(self, values: npt.NDArray[Any], offset: int) -> None:
        """Copy an array into the region, from byte `offset` on."""
        target: npt.NDArray[Any] = np.ndarray(values.shape, values.dtype, self._map, offset)
        np.copyto(target, values)

    def read(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int) -> npt.NDArray[Any]:
        """Return a copy of the array that begins at byte `offset`."""
        source: npt.NDArray[Any] = np.ndarray(shape, dtype, self._map, offset)
        return source.copy()

    def close(self) -> None:
        """Unmap and remove the file."""
        self._map.close()
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._path.unlink(missing_ok=True)


def aligned(size: int) -> int:
    """Round a size up to a place where the next array may begin, bytes."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def remove_abandoned() -> None:
    """Remove the regions of processes that were killed."""
    for path in _FOLDER.glob(f"{PREFIX}*"):
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            continue  # removed meanwhile, or another user's file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue  # its owner lives
        finally:
            os.close(file)


def is_present(name: str) -> bool:
    """Return whether a region of this name lies in /dev/shm."""
    return (_FOLDER / name).exists()
