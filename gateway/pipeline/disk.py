"""Errors of a full disk in a job's folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from services.common.store.full_disk import told_of_full_disk


def job_folder(folder: Path) -> AbstractContextManager[None]:
    """Translate errors of a full disk, for code that writes to a job's folder.

    Raises:
        StorageFull: no space is left in the folder.
    """
    return told_of_full_disk(
        f"no space left for the job's records in {folder}: free some, or point DUBSTAGE_DATA_DIR elsewhere", folder
    )
