"""A live stream that runs: it ends at once when its actor is erased, or when its consent does not hold any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from gateway.actors.consents import Consents
from gateway.actors.job_blobs import erased_meanwhile
from gateway.actors.stored import StoredActor
from gateway.ahead import in_thread
from gateway.live.session import LiveFrame
from services.common.errors import DubstageError, TransientError

LOOK_S: Final = 0.25
"""Seconds between two looks whether the consent for a stream still holds."""


@dataclass(eq=False, slots=True)
class Running:
    """One running stream.

    Attributes:
        actor_id: the actor that the stream shows.
        refusal: why the stream ends: the actor was erased, or the consent has ended; None: the stream goes on.
        waiting: ends the wait for the next frame; None: the stream does not wait.
    """

    actor_id: str
    refusal: DubstageError | None = None
    waiting: asyncio.Timeout | None = None

    def end(self, refusal: DubstageError) -> None:
        """End the stream with an error: at once if it waits for a frame, otherwise before its next frame."""
        # A wait that has ended cannot be ended again.
        if self.refusal is not None:
            return
        self.refusal = refusal
        if self.waiting is not None:
            self.waiting.reschedule(asyncio.get_running_loop().time())

    def erase(self) -> None:
        """End the stream because its actor was erased."""
        self.end(erased_meanwhile(self.actor_id))

    def check(self) -> None:
        """Raise the error that the stream was ended with."""
        if self.refusal is not None:
            raise self.refusal

    async def next_of(self, frames: AsyncGenerator[LiveFrame, None]) -> LiveFrame | None:
        """Return the next frame, or None at the end.

        Raises:
            DubstageError: the error that the stream was ended with.
        """
        self.check()
        try:
            async with asyncio.timeout(None) as self.waiting:
                return await anext(frames, None)
        except TimeoutError:
            self.check()
            raise
        finally:
            self.waiting = None


@asynccontextmanager
async def ended_with_consent(stream: Running, actor: StoredActor, consents: Consents) -> AsyncIterator[None]:
    """End a stream as soon as the consent for the stream is withdrawn, in any process, or its time is over."""
    watch = asyncio.create_task(_watch(stream, actor, consents))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(stream: Running, actor: StoredActor, consents: Consents) -> None:
    while stream.refusal is None:
        try:
            await in_thread(lambda: consents.check_lasting([actor.consent], subject=actor.actor_id))
        except TransientError:
            pass  # a database that restarts ends no stream
        except DubstageError as refusal:
            stream.end(refusal)
        await asyncio.sleep(LOOK_S)
