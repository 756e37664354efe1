"""The end of a job: removes its folder, and its blobs that no actor and no other job counts."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.pipeline.journal import journalled
from gateway.pipeline.ledger import BlobLedger
from gateway.pipeline.workspace import JOURNAL, lock_folder
from services.common.artefacts import ArtefactStore
from services.common.errors import InvalidRequest

_log = structlog.stdlib.get_logger("dubstage.jobs")


@dataclass(frozen=True, slots=True)
class Freed:
    """What a removal freed.

    Attributes:
        folder_bytes: in the job's folder.
        blobs: blobs that were deleted.
        blob_bytes: their size.
    """

    folder_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(self.folder_bytes + other.folder_bytes, self.blobs + other.blobs, self.blob_bytes + other.blob_bytes)


def give_up(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> Freed | None:
    """Remove a job, unless it is running: then, and where there is none, nothing happens.

    Returns:
        What was freed; None where the job is running or is not there.
    """
    try:
        handle = lock_folder(folder, make=False)
    except (InvalidRequest, FileNotFoundError, NotADirectoryError):
        return None
    try:
        return remove_locked(folder, ledger, store)
    finally:
        os.close(handle)


def remove_locked(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> Freed:
    """As `give_up`, for a caller that holds the folder's lock."""
    blobs, blob_bytes = 0, 0
    # Blobs first: where the store fails on the way, the job still counts them, and the next try deletes the rest.
    alone = ledger.only_here(folder, list(journalled(folder / JOURNAL)))
    for ref in alone:
        try:
            deleted = store.delete(ref)
        except InvalidRequest as problem:
            # Made before DUBSTAGE_ARTEFACTS_URL was pointed elsewhere: this store does not reach it.
            _log.warning("blob_of_another_store_kept", job=folder.name, problem=problem.message)
            continue
        blobs, blob_bytes = blobs + deleted, blob_bytes + deleted * ref.size_bytes
    freed = folder_bytes(folder)
    for ref in set(ledger.release(folder, ())) - set(alone):
        # Counted meanwhile by a thread of the job that was cancelled.
        blobs, blob_bytes = blobs + store.delete(ref), blob_bytes + ref.size_bytes
    shutil.rmtree(folder, ignore_errors=True)
    return Freed(freed, blobs, blob_bytes)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    size = 0
    for part, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(part, name)).st_size
            except FileNotFoundError:
                continue
    return size
