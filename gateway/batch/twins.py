"""Shots with the same mouths, such as one dub in two codecs. They share a job folder, so they are dubbed one after the other."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from gateway.batch.alone import LOGS
from gateway.batch.bench import Bench
from gateway.batch.turns import WAIT_S, turn
from gateway.batch.types import Shot
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.workspace import ALREADY_RUNNING
from services.common.errors import InvalidRequest

T = TypeVar("T")


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

    Without the wait, a twin would begin in vain again and again, because the first worker has locked the job folder.

    Args:
        bench: what the worker dubs with.
        shot: row of the manifest.
        request: its request.
    """
    place = bench.settings.data_dir / LOGS / f"twin-{twin_key(shot, request)}"
    async with turn(place):
        yield


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
        request.expressiveness,
        shot.personalize,
        shot.seed,
    ]
    return hashlib.sha256(repr(mouths).encode()).hexdigest()[:24]
