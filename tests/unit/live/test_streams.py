"""A live stream ends at once with the person whom it shows, whatever it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.actors.consents import Consents
from gateway.actors.job_blobs import erased_meanwhile
from gateway.actors.stored import StoredActor
from gateway.database.session import Database
from gateway.live.session import LiveFrame
from gateway.live.streams import RunningStream, ended_with_consent
from gateway.settings import GatewaySettings
from services.common.errors import ActorError, UnexpectedError

PICTURE = np.zeros((2, 2, 3), np.uint8)


class Frames:
    """One frame, then silence; its end takes a while."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def frames(self) -> AsyncGenerator[LiveFrame, None]:
        try:
            yield LiveFrame(0, PICTURE, False)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            self.closed.set()


async def test_waiting_stream_ends() -> None:
    """A stream that waits for its next frame ends."""
    source = Frames()
    frames = source.frames()
    stream = RunningStream("ann")
    assert await stream.next_of(frames) is not None
    waiting = asyncio.create_task(stream.next_of(frames))
    await asyncio.sleep(0.01)
    stream.end(erased_meanwhile("ann"))
    await asyncio.sleep(0.01)
    # Told again while it ends.
    stream.end(erased_meanwhile("ann"))
    with pytest.raises(ActorError, match="actor 'ann' was erased"):
        await waiting
    assert source.closed.is_set()


async def test_busy_stream_ends_on_resume() -> None:
    """A stream that does not wait ends when it goes on."""
    frames = Frames().frames()
    stream = RunningStream("ann")
    assert await stream.next_of(frames) is not None
    stream.end(erased_meanwhile("ann"))
    with pytest.raises(ActorError):
        await stream.next_of(frames)
    await frames.aclose()


async def test_a_timeout_of_its_own_is_no_erasure() -> None:
    async def late() -> AsyncGenerator[LiveFrame, None]:
        raise TimeoutError("a stage")
        yield

    with pytest.raises(TimeoutError, match="a stage"):
        await RunningStream("ann").next_of(late())


async def test_stream_ends_with_its_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the consent that fails by a bug ends the stream, which nobody would watch any more."""

    def broken(self: Consents, *arguments: object, **fields: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Consents, "check_lasting", broken)
    with closing(Database("", tmp_path)) as database:
        stream = RunningStream("ann")
        no_consent: Any = None
        actor = StoredActor("ann", "dubstage", None, "0" * 64, "2026-02-01T00:00:00Z", no_consent, {})
        async with ended_with_consent(stream, actor, Consents(database, GatewaySettings())), asyncio.timeout(20):
            frames = Frames().frames()
            assert await stream.next_of(frames) is not None
            with pytest.raises(UnexpectedError):
                await stream.next_of(frames)
