"""Turns of the workers of one machine: one worker holds the lock of a folder, and the others wait."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.ahead import in_thread
from gateway.batch.alone import LOGS
from gateway.pipeline.workspace import lock_folder
from services.common.errors import InvalidRequest

WAIT_S: Final = 1.0
"""Seconds between two tries while another worker has the turn."""


@asynccontextmanager
async def turn_of_shot(data_dir: Path, shot_url: str) -> AsyncIterator[None]:
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
            await stack.enter_async_context(turn(data_dir / LOGS / f"shot-{digest}"))
        yield


@asynccontextmanager
async def turn(place: Path) -> AsyncIterator[None]:
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
        except InvalidRequest:
            await asyncio.sleep(WAIT_S)
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


async def _locked(place: Path) -> int:
    """Lock a folder and return the open lock file. A task that is cancelled meanwhile leaves no lock.

    Raises:
        InvalidRequest: another worker has the lock.
        OSError: the folder cannot be made.
    """
    held: list[int] = []
    try:
        await in_thread(lambda: held.append(lock_folder(place)))
    except asyncio.CancelledError:
        for handle in held:
            os.close(handle)
        raise
    return held[0]
