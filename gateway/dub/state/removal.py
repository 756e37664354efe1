"""Removal of a job: its folder, and its blobs that no actor and no other job uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.dub.state.journal import BlobLedger, journalled
from gateway.dub.state.workspace import JOURNAL, LOCK, lock_folder
from gateway.media.output import remove_leftovers
from gateway.provenance.binding import sidecar_of
from services.common.errors import InvalidRequestError
from services.common.store.artefacts import ArtefactRef, ArtefactStore

_log = structlog.stdlib.get_logger("dubstage.jobs")
BLOBS_PER_LOCK: Final = 10
"""Blobs that are deleted in one turn. No other job can count blobs during a turn."""


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """Space that a removal freed.

    Attributes:
        folder_bytes: bytes of the deleted files of jobs.
        blobs: number of deleted blobs.
        blob_bytes: bytes of the deleted blobs.
    """

    folder_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0

    def __add__(self, other: RemovalReport) -> RemovalReport:
        return RemovalReport(self.folder_bytes + other.folder_bytes, self.blobs + other.blobs, self.blob_bytes + other.blob_bytes)


def remove_job(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> RemovalReport | None:
    """Remove a job, and return what was freed.

    Returns:
        What was freed; None: the job is running or does not exist, and nothing was removed.
    """
    try:
        handle = lock_folder(folder, make=False)
    except (InvalidRequestError, FileNotFoundError, NotADirectoryError):
        return None
    try:
        return remove_locked(folder, ledger, store)
    finally:
        os.close(handle)


def remove_locked(folder: Path, ledger: BlobLedger, store: ArtefactStore) -> RemovalReport:
    """Remove a job whose folder the caller has locked, and return what was freed."""
    # Blobs are deleted first. If the store fails, the job still counts the rest, and the next try deletes them.
    early = delete_unused(folder, ledger.only_here(folder, list(journalled(folder / JOURNAL))), ledger, store)
    freed = folder_bytes(folder)
    # A thread of the cancelled job counted further blobs meanwhile, or another job that used the same blob ended.
    late = delete_unused(folder, ledger.release(folder), ledger, store)
    # The lock goes last. Another job could lock a new file in its place, and would work in a folder that is being removed.
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    sizes = [ref.size_bytes for ref, deleted in (*early.items(), *late.items()) if deleted]
    return RemovalReport(freed, len(sizes), sum(sizes))


def delete_unused(folder: Path, refs: Iterable[ArtefactRef], ledger: BlobLedger, store: ArtefactStore) -> dict[ArtefactRef, bool]:
    """Delete the blobs that nothing but the job of this folder uses.

    Returns:
        The blobs that nothing else uses, and whether each was deleted: a blob that is gone or in another store was not.
    """
    deleted: dict[ArtefactRef, bool] = {}
    distinct = list(dict.fromkeys(refs))
    for begin in range(0, len(distinct), BLOBS_PER_LOCK):
        with ledger.unused(folder, distinct[begin : begin + BLOBS_PER_LOCK]) as unused:
            for ref in unused:
                deleted[ref] = _delete(ref, folder, store)
    return deleted


def _delete(ref: ArtefactRef, folder: Path, store: ArtefactStore) -> bool:
    try:
        return store.delete(ref)
    except InvalidRequestError as problem:
        # The blob was stored before DUBSTAGE_ARTEFACTS_URL changed, so it is in another store.
        _log.warning("blob_of_another_store_kept", job=folder.name, problem=problem.message)
        return False


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    size = 0
    for part, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(part, name)).st_size
            except FileNotFoundError:
                continue
    return size


def remove_partial_video(output: Path) -> None:
    """Remove what a process that was killed has left of a video beside the video's path, and of the manifest in its sidecar."""
    for file in (output, sidecar_of(output)):
        with suppress(OSError):
            remove_leftovers(file)
