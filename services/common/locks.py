"""Locks of open files. A lock ends when its handle is closed, or with the process, however the process ends.

The package `filelock` locks a file of its own by its name. Here, the locked file often is the content itself (a video, a backup or
a region of shared memory that is still being written, so that a later process recognises what a killed process left), is opened
through a folder's handle, is locked by several readers, or is removed under the lock.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(handle: int, *, shared: bool = False) -> bool | None:
    """Lock an open file, without waiting, and return whether the handle has the lock.

    Args:
        handle: descriptor of the file or of the folder.
        shared: several handles may have the lock together; none has it exclusively.

    Returns:
        True: the handle has the lock. False: another handle has it. None: the file system has no locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def unlock(handle: int) -> None:
    """Release the lock of a handle that stays open. On a file system without locks, nothing happens."""
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError:
        return


def open_locked(path: Path, *, shared: bool = False, mode: int = 0o600) -> int | None:
    """Open and lock a lock file, and return its handle; None: another handle has the lock. The file is created, and stays.

    On a file system without locks, the handle is returned without a lock.

    Args:
        path: the lock file.
        shared: several handles may have the lock together.
        mode: permissions of a new file.

    Raises:
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    if try_lock(handle, shared=shared) is False:
        os.close(handle)
        return None
    return handle
