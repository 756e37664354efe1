"""Folders and files of the installation that only their owner may read, whatever the umask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.safe_paths import bounded_bytes
from services.common.errors import StorageRefusedError
from services.common.files import create_whole

KEY_MODE: Final = 0o600
"""Permissions of keys and secrets."""


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
