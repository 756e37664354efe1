"""The lock of a batch, so that one process of a machine at a time gives the shots of the batch to workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.batch.media import local_path
from gateway.batch.store import BatchStore
from gateway.pipeline.workspace import LOCK, lock_folder
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, InvalidRequest

LOGS: Final = "workers"
"""Folder below the data folder for what worker processes print, and for the locks of shots and of batches in buckets."""


@contextmanager
def alone(settings: GatewaySettings, store: BatchStore, name: str) -> Iterator[None]:
    """Hold the lock of a batch, so that one process of this machine at a time runs the batch.

    If the batch was removed meanwhile, the lock is removed too.

    Raises:
        InvalidRequest: another process runs the batch.
    """
    data_folder(settings.data_dir)
    place = local_path(store.url)
    # The lock of a batch in a bucket lies in the data folder.
    digest = hashlib.sha256(f"{store.url}/{name}".encode()).hexdigest()[:16]
    folder = Path(place) / name if place is not None else settings.data_dir / LOGS / f"batch-{digest}"
    try:
        handle = lock_folder(folder)
    except InvalidRequest:
        raise InvalidRequest(
            f"another `dubstage batch submit` runs batch {name} on this machine: follow it with `dubstage batch watch {name}`, or "
            "wait until it has ended",
            field="name",
        ) from None
    try:
        try:
            yield
        finally:
            # If the store does not answer, the lock stays, and harms nobody.
            with suppress(DubstageError):
                if store.find(name) is None:
                    _remove(folder)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove the lock that this process holds, and its folder. A process that opened the lock before makes a new lock."""
    # Another process may have made the batch, or its lock, again: then the folder is not empty, and stays.
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
