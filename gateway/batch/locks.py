"""Locks of the workers of one machine: of a folder, and of a batch, whose shots one process at a time gives to workers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.async_utilities import in_thread
from gateway.batch.store import BatchStore
from gateway.media.locations import local_path
from gateway.private_files import data_folder
from gateway.safe_paths import path_below
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, InvalidRequestError
from services.common.texts import Command, Text

WORKERS_FOLDER: Final = "workers"
"""Folder below the data folder for what worker processes print, and for the locks of shots and of batches in buckets."""


@contextmanager
def batch_lock(settings: GatewaySettings, store: BatchStore, name: str) -> Iterator[None]:
    """Hold the lock of a batch, so that one process of this machine at a time runs the batch.

    If the batch was removed meanwhile, the lock is removed too.

    Raises:
        InvalidRequestError: another process runs the batch.
    """
    # Imported here, as below: commands that show a batch hold no lock, and need no library of media.
    from gateway.dub.state.workspace import lock_folder

    data_folder(settings.data_dir)
    place = local_path(store.url)
    # The lock of a batch in a bucket lies in the data folder.
    digest = hashlib.sha256(f"{store.url}/{name}".encode()).hexdigest()[:16]
    own = path_below(Path(place), name, field="name") if place is not None else None
    folder = own or settings.data_dir / WORKERS_FOLDER / f"batch-{digest}"
    try:
        handle = lock_folder(folder)
    except InvalidRequestError:
        raise InvalidRequestError(
            Text(
                "another {submit} runs batch {name} on this machine: follow it with {watch}, or wait until it has ended",
                submit=Command("batch submit"),
                name=name,
                watch=Command("batch watch", name),
            ),
            field="name",
        ) from None
    try:
        try:
            yield
        finally:
            # If the store does not answer, the lock file stays. The next lock of the batch uses it again.
            with suppress(DubstageError):
                if store.find(name) is None:
                    _remove(folder)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove the lock that this process holds, and its folder. A process that opened the lock before makes a new lock."""
    from gateway.dub.state.workspace import LOCK

    # Another process may have made the batch, or its lock, again: then the folder is not empty, and stays.
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


WAIT_S: Final = 1.0
"""Seconds between two tries while another worker has the turn."""


@asynccontextmanager
async def shot_lock(data_dir: Path, shot_url: str) -> AsyncIterator[None]:
    """Wait until no other worker of this machine has a shot of a batch, and keep the shot inside the block.

    The worker that waited sees the record that the worker before has stored.

    Args:
        data_dir: data folder of the workers.
        shot_url: URL of the shot's batch in the store of batches, and the id of the shot.
    """
    digest = hashlib.sha256(shot_url.encode()).hexdigest()[:24]
    async with AsyncExitStack() as stack:
        # Without a lock, on a full disk, the shot is begun nevertheless: its record then tells what is wrong.
        with suppress(OSError):
            await stack.enter_async_context(folder_lock(data_dir / WORKERS_FOLDER / f"shot-{digest}"))
        yield


@asynccontextmanager
async def folder_lock(place: Path) -> AsyncIterator[None]:
    """Wait until no other worker of this machine has the lock of a folder, and hold the lock inside the block.

    Args:
        place: folder, which is made, and removed at the end.

    Raises:
        OSError: the folder cannot be made.
    """
    while True:
        try:
            handle = await _locked(place)
            break
        except InvalidRequestError:
            await asyncio.sleep(WAIT_S)
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


async def _locked(place: Path) -> int:
    """Lock a folder and return the open lock file. A task that is cancelled meanwhile leaves no lock.

    Raises:
        InvalidRequestError: another worker has the lock.
        OSError: the folder cannot be made.
    """
    from gateway.dub.state.workspace import lock_folder

    held: list[int] = []
    try:
        await in_thread(lambda: held.append(lock_folder(place)))
    except asyncio.CancelledError:
        for handle in held:
            os.close(handle)
        raise
    return held[0]
