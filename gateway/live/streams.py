"""Opening of live streams: who may be shown, how many streams run at the same time, and which footage is kept in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from dubstage.audio.v1alpha1 import audio_pb2
from gateway.actors.job_blobs import erased_meanwhile
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.ahead import in_thread
from gateway.consent.use import ConsentUse
from gateway.live.performance import Performance, load_performance
from gateway.live.session import LiveFrame, LiveSound, live_frames
from gateway.methods import method_named
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from services.common.errors import ActorNotReady, DubstageError, Overloaded, TransientError
from services.common.store.artefacts import ArtefactStore

HELD_PERFORMANCES: Final = 2
"""Actors whose decoded footage is kept for their next stream."""
LOOK_S: Final = 0.25
"""Seconds between two looks whether the consent for a stream still holds."""
MESSAGE_ROOM: Final = 4096
"""Bytes of a message without its picture."""


@dataclass(eq=False, slots=True)
class _Running:
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


class LiveStreams:
    """Live streams of one process.

    Args:
        stages: returns the stages, once they are open.
        actors: store of actors.
        artefacts: artefact store of the stages.
        max_streams: most streams that run at the same time.
        max_message_bytes: size limit of a message, which has to hold one frame.
    """

    def __init__(
        self,
        stages: Callable[[], Stages],
        actors: ActorStore,
        artefacts: ArtefactStore,
        *,
        max_streams: int,
        max_message_bytes: int,
    ) -> None:
        self._stages = stages
        self._actors = actors
        self._artefacts = artefacts
        self._max_streams = max_streams
        self._max_message_bytes = max_message_bytes
        self._running: list[_Running] = []
        self._held: OrderedDict[str, Performance] = OrderedDict()

    async def frames(
        self,
        actor_id: str,
        audio: AsyncIterator[audio_pb2.AudioChunk],
        *,
        sample_rate_hz: int,
        channels: int,
        use: ConsentUse = ConsentUse(),
    ) -> AsyncGenerator[LiveFrame, None]:
        """Yield the dubbed frames of an actor while `audio` comes. The first chunk is asked for when everything else is ready.

        Args:
            actor_id: the actor to show.
            audio: the sound, in order.
            sample_rate_hz: sample rate of the sound.
            channels: number of channels of the sound.
            use: project and language of the stream, which the actor's consent record must cover.

        Raises:
            ActorNotReady: no such actor, the actor cannot be shown live, or the actor was erased meanwhile.
            ConsentRefused: the actor's consent record does not allow the stream, ends meanwhile, or is missing and required.
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
            await asyncio.to_thread(self._actors.consents.check, actor.consent, use, actor_id)
            await models_for(self._stages(), method_named(actor.method))
            performance = await self._performance(actor)
            # This check is the last: from here on, `forget` ends the stream.
            await asyncio.to_thread(self._actors.erasures.check, actor_id)
            sound = LiveSound(audio, sample_rate_hz, channels)
            frames = live_frames(self._stages(), actor, performance, sound)
            async with aclosing(frames), self._ended_with_consent(mine, actor):
                while (frame := await mine.next_of(frames)) is not None:
                    mine.check()
                    yield frame
        finally:
            self._running.remove(mine)

    @asynccontextmanager
    async def _ended_with_consent(self, stream: _Running, actor: StoredActor) -> AsyncIterator[None]:
        """End a stream as soon as the consent for the stream is withdrawn, in any process, or its time is over."""
        watch = asyncio.create_task(self._watch(stream, actor))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, stream: _Running, actor: StoredActor) -> None:
        while stream.refusal is None:
            try:
                await in_thread(lambda: self._actors.consents.check_lasting([actor.consent], subject=actor.actor_id))
            except TransientError:
                pass  # a database that restarts ends no stream
            except DubstageError as refusal:
                stream.end(refusal)
            await asyncio.sleep(LOOK_S)

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
                stream.end(erased_meanwhile(actor_id))

    def shown(self) -> frozenset[str]:
        """Return the ids of the actors whose streams run now."""
        return frozenset(stream.actor_id for stream in self._running)
