"""Folders and files of the installation that only their owner may read, whatever the umask."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.safe_paths import bounded_bytes
from services.common.errors import StorageRefusedError
from services.common.files import create_whole
from services.common.locks import try_lock

KEY_MODE: Final = 0o600
"""Permissions of keys and secrets."""
_SOCKETS: Final = "dubstage-http-"
_UNLOCKED_S: Final = 60.0
"""Age from which a folder of sockets without a lock was left by a killed process, seconds. A younger one may be locked soon."""


class SocketFolder:
    """Folder for sockets of this process, which only this user can open. Folders of processes that were killed are removed.

    Attributes:
        path: the folder, below the folder for temporary files.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{_SOCKETS}*"):
            _remove_abandoned(folder)
        self.path = Path(tempfile.mkdtemp(prefix=_SOCKETS))
        self._handle: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try_lock(self._handle)

    def remove(self) -> None:
        """Remove the folder and its sockets. Further calls do nothing: a second drain may end first."""
        handle, self._handle = self._handle, None
        if handle is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(handle)


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder of sockets that no process has locked. Another user's folder stays."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        facts = os.fstat(handle)
        old = time.time() - facts.st_mtime > _UNLOCKED_S
        if facts.st_uid == os.getuid() and old and try_lock(handle):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def data_folder(folder: Path) -> None:
    """Make the gateway's data folder (mode 0700) if it is missing. A folder that exists keeps its permissions.

    Raises:
        StorageRefusedError: the folder cannot be made, or the path names no folder.
    """
    try:
        if folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as problem:
        raise folder_error(folder, problem) from problem


def folder_error(folder: Path, problem: OSError) -> StorageRefusedError:
    """Return the error for a data folder that cannot be used."""
    return StorageRefusedError(
        f"the data folder {folder} cannot be used: {problem.strerror or problem}: set DUBSTAGE_DATA_DIR to a folder that this user "
        "may write",
        subject=str(folder),
    )


def key_file_error(file: Path, problem: OSError) -> StorageRefusedError:
    """Return the error for a key of the installation that cannot be read or written."""
    return StorageRefusedError(f"the key {file} cannot be used: {problem.strerror or problem}", subject=str(file))


def own_key(file: Path, make: Callable[[], bytes], *, most_bytes: int) -> bytes:
    """Return the content of a key file of the data folder. The first call makes the folder and the key.

    Args:
        file: file in the gateway's data folder.
        make: returns a new key with all that the file holds.
        most_bytes: largest file that is read, bytes.

    Raises:
        StorageRefusedError: the file cannot be read or written.
    """
    data_folder(file.parent)
    try:
        if not file.exists():
            create_whole(file, make(), mode=KEY_MODE)
    except OSError as problem:
        raise folder_error(file.parent, problem) from problem
    try:
        return bounded_bytes(file, most_bytes)
    except OSError as problem:
        raise key_file_error(file, problem) from problem
