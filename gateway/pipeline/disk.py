"""Errors of a full disk in a job's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.common.errors import StorageFull
from services.common.store.full_disk import FULL_DISK


@contextmanager
def job_folder(folder: Path) -> Iterator[None]:
    """Translate errors of a full disk, for code that writes to a job's folder.

    Raises:
        StorageFull: no space is left in the folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise StorageFull(
            f"no space left for the job's records in {folder}: free some, or point DUBSTAGE_DATA_DIR elsewhere",
            subject=str(folder),
        ) from error
