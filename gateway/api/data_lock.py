"""The lock of a data folder: gateways with SQLite work in it alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.private_files import cannot_use, data_folder
from services.common.errors import InvalidRequest


def lock_data_folder(folder: Path, *, together: bool) -> int:
    """Lock a data folder against other gateways, and return the open lock file.

    The lock ends with the process, however the process ends.

    Args:
        folder: the data folder.
        together: whether gateways that share a database may work in the folder together.

    Raises:
        InvalidRequest: another gateway works in the folder.
        StorageRefused: the folder cannot be used.
    """
    data_folder(folder)
    try:
        handle = os.open(folder / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise cannot_use(folder, problem) from problem
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidRequest(
            f"another gateway works in {folder}: end it, or set DUBSTAGE_DATA_DIR to another folder; only gateways that share a "
            "PostgreSQL may share a folder",
            field="DUBSTAGE_DATA_DIR",
        ) from None
    return handle
