"""Shots with the same mouths, such as one dub in two codecs. They share a job folder, so they are dubbed one after the other."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from gateway.ahead import in_thread
from gateway.batch.alone import LOGS
from gateway.batch.bench import Bench
from gateway.batch.types import Shot
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.workspace import ALREADY_RUNNING, lock_folder
from services.common.errors import InvalidRequest

T = TypeVar("T")

WAIT_S: Final = 1.0
"""Seconds between two tries while a twin is dubbed."""


async def when_free(dub: Callable[[], Awaitable[T]]) -> T:
    """Return what `dub` returns, and call it again while another process, such as `dubstage dub`, runs the very same dub."""
    while True:
        try:
            return await dub()
        except InvalidRequest as problem:
            if problem.message != ALREADY_RUNNING:
                raise
        await asyncio.sleep(WAIT_S)


@asynccontextmanager
async def without_twins(bench: Bench, shot: Shot, request: DubRequest) -> AsyncIterator[None]:
    """Wait until no worker of this machine dubs a twin of a shot, and let no other worker begin with one inside the block.

    Without the wait, a twin could take the job folder between the dub and the measurement of the film.

    Args:
        bench: what the worker dubs with.
        shot: row of the manifest.
        request: its request.
    """
    place = bench.settings.data_dir / LOGS / f"twin-{twin_key(shot, request)}"
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
        InvalidRequest: a twin is dubbed now.
    """
    held: list[int] = []
    try:
        await in_thread(lambda: held.append(lock_folder(place)))
    except asyncio.CancelledError:
        for handle in held:
            os.close(handle)
        raise
    return held[0]


def twin_key(shot: Shot, request: DubRequest) -> str:
    """Return a digest that twins have in common.

    Other shots may have the same digest, because the sizes of the files stand for their contents. Such shots wait in vain, and
    nothing is wrong with their films.
    """
    files = [request.footage, *([request.speech] if request.speech is not None else [])]
    mouths = [
        *(os.path.getsize(file) for file in files),
        request.method,
        shot.actor,
        shot.face,
        shot.retime,
        request.keeps_expression,
        shot.personalize,
        shot.seed,
    ]
    return hashlib.sha256(repr(mouths).encode()).hexdigest()[:24]
