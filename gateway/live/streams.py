"""Opening of live streams: who may be shown, how many streams run at the same time, and which footage is kept in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from dubstage.audio.v1alpha1 import audio_pb2
from gateway.actors.job_blobs import erased_meanwhile
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.live.performance import Performance, load_performance
from gateway.live.session import LiveFrame, LiveSound, live_frames
from gateway.methods import method_named
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from services.common.errors import ActorNotReady, ConsentMissing, Overloaded
from services.common.store.artefacts import ArtefactStore

HELD_PERFORMANCES: Final = 2
"""Actors whose decoded footage is kept for their next stream."""
MESSAGE_ROOM: Final = 4096
"""Bytes of a message without its picture."""


@dataclass(eq=False, slots=True)
class _Running:
    """One running stream.

    Attributes:
        actor_id: the actor that the stream shows.
        erased: whether the actor was erased.
        waiting: ends the wait for the next frame; None: the stream does not wait.
    """

    actor_id: str
    erased: bool = False
    waiting: asyncio.Timeout | None = None

    def end(self) -> None:
        """End the stream: at once if it waits for a frame, otherwise before its next frame."""
        first, self.erased = not self.erased, True
        # A wait that has ended cannot be ended again.
        if first and self.waiting is not None:
            self.waiting.reschedule(asyncio.get_running_loop().time())

    def check(self) -> None:
        """Raise ActorNotReady if the actor was erased."""
        if self.erased:
            raise erased_meanwhile(self.actor_id)

    async def next_of(self, frames: AsyncGenerator[LiveFrame, None]) -> LiveFrame | None:
        """Return the next frame, or None at the end.

        Raises:
            ActorNotReady: the actor was erased.
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


class LiveStreams:
    """Live streams of one process.

    Args:
        stages: returns the stages, once they are open.
        actors: store of actors.
        artefacts: artefact store of the stages.
        max_streams: most streams that run at the same time.
        require_consent: whether this installation shows nobody without a consent record.
        max_message_bytes: size limit of a message, which has to hold one frame.
    """

    def __init__(
        self,
        stages: Callable[[], Stages],
        actors: ActorStore,
        artefacts: ArtefactStore,
        *,
        max_streams: int,
        require_consent: bool,
        max_message_bytes: int,
    ) -> None:
        self._stages = stages
        self._actors = actors
        self._artefacts = artefacts
        self._max_streams = max_streams
        self._require_consent = require_consent
        self._max_message_bytes = max_message_bytes
        self._running: list[_Running] = []
        self._held: OrderedDict[str, Performance] = OrderedDict()

    async def frames(
        self, actor_id: str, audio: AsyncIterator[audio_pb2.AudioChunk], *, sample_rate_hz: int, channels: int
    ) -> AsyncGenerator[LiveFrame, None]:
        """Yield the dubbed frames of an actor while `audio` comes. The first chunk is asked for when everything else is ready.

        Raises:
            ActorNotReady: no such actor, the actor cannot be shown live, or the actor was erased meanwhile.
            ConsentMissing: the installation requires a consent record and the actor has none.
            ModelNotFound: the stages do not have the actor's method.
            Overloaded: `max_streams` streams run already.
            DubstageError: from the stages.
        """
        if len(self._running) >= self._max_streams:
            raise Overloaded(f"{len(self._running)} live streams run already, as many as the gateway takes", retry_after_s=5.0)
        mine = _Running(actor_id)
        self._running.append(mine)
        try:
            actor = await asyncio.to_thread(self._actors.get, actor_id)
            if actor.consent is None and self._require_consent:
                raise ConsentMissing("this installation shows nobody without a consent record", subject=actor_id)
            await models_for(self._stages(), method_named(actor.method))
            performance = await self._performance(actor)
            # This check is the last: from here on, `forget` ends the stream.
            await asyncio.to_thread(self._actors.erasures.check, actor_id)
            sound = LiveSound(audio, sample_rate_hz, channels)
            frames = live_frames(self._stages(), actor, performance, sound)
            async with aclosing(frames):
                while (frame := await mine.next_of(frames)) is not None:
                    mine.check()
                    yield frame
        finally:
            self._running.remove(mine)

    async def _performance(self, actor: StoredActor) -> Performance:
        # The key is a digest of the enrolment, because an actor that was erased and enrolled again is another person's footage.
        # The actor was read from the store before, so footage of an erased actor is never shown from memory.
        key = actor.artefacts["enrolment"].sha256
        found = self._held.pop(key, None)
        if found is None:
            found = await asyncio.to_thread(load_performance, actor, self._artefacts)
            picture_bytes = found.frames[0].nbytes
            if picture_bytes + MESSAGE_ROOM > self._max_message_bytes:
                height, width, _ = found.frames[0].shape
                raise ActorNotReady(
                    f"pictures of {actor.actor_id} ({width} x {height}) are larger than a message may be: set "
                    "DUBSTAGE_MAX_MESSAGE_BYTES higher on both sides, or enrol from smaller footage",
                    subject=actor.actor_id,
                )
        self._held[key] = found
        while len(self._held) > HELD_PERFORMANCES:
            self._held.popitem(last=False)
        return found

    def forget(self, actor_id: str) -> None:
        """End the streams of an actor who was erased, and remove all footage from memory."""
        self._held.clear()
        for stream in self._running:
            if stream.actor_id == actor_id:
                stream.end()

    def shown(self) -> frozenset[str]:
        """Return the ids of the actors whose streams run now."""
        return frozenset(stream.actor_id for stream in self._running)
