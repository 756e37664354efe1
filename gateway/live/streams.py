"""Opens live streams: who may be shown, how many at once, and what is held ready for them."""

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
from gateway.live.session import LiveFrame, live_frames
from gateway.stages.interface import Stages
from services.common.artefacts import ArtefactStore
from services.common.errors import ActorNotReady, ConsentMissing, Overloaded

HELD_PERFORMANCES: Final = 2
"""Decoded footage that is kept for the next stream of the same actor."""
MESSAGE_ROOM: Final = 4096
"""Bytes of a message beside its picture."""


@dataclass(eq=False, slots=True)
class _Running:
    """A stream: of whom, whether they were erased, and what ends the wait for its next frame, while it waits."""

    actor_id: str
    erased: bool = False
    waiting: asyncio.Timeout | None = None

    def end(self) -> None:
        """End the stream, now where it waits, otherwise when it goes on."""
        first, self.erased = not self.erased, True
        # Once: a wait that ends already cannot be ended again.
        if first and self.waiting is not None:
            self.waiting.reschedule(asyncio.get_running_loop().time())

    def check(self) -> None:
        """Raise ActorNotReady where the person was erased."""
        if self.erased:
            raise erased_meanwhile(self.actor_id)

    async def next_of(self, frames: AsyncGenerator[LiveFrame, None]) -> LiveFrame | None:
        """The next frame, or None at the end.

        Raises:
            ActorNotReady: the person was erased.
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
        stages: gives the stages, once they are open.
        actors: the enrolled people.
        artefacts: the store that the stages share.
        max_streams: how many run at once.
        require_consent: nobody is shown without a consent record.
        max_message_bytes: largest message that a frame may travel in.
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
        """Dubbed frames of an actor while `audio` comes; it is first asked for sound when everything else is ready.

        Raises:
            ActorNotReady: no such actor, or none that can be shown live; or they were erased meanwhile.
            ConsentMissing: the installation requires a consent record and the actor has none.
            Overloaded: as many streams run as may.
            DubstageError: see `live_frames`.
        """
        if len(self._running) >= self._max_streams:
            raise Overloaded(f"{len(self._running)} live streams run already, as many as the gateway takes", retry_after_s=5.0)
        mine = _Running(actor_id)
        self._running.append(mine)
        try:
            actor = await asyncio.to_thread(self._actors.get, actor_id)
            if actor.consent is None and self._require_consent:
                raise ConsentMissing("this installation shows nobody without a consent record", subject=actor_id)
            performance = await self._performance(actor)
            # Asked last: from here on, `forget` ends this stream.
            await asyncio.to_thread(self._actors.erasures.check, actor_id)
            frames = live_frames(self._stages(), actor, performance, audio, sample_rate_hz=sample_rate_hz, channels=channels)
            async with aclosing(frames):
                while (frame := await mine.next_of(frames)) is not None:
                    mine.check()
                    yield frame
        finally:
            self._running.remove(mine)

    async def _performance(self, actor: StoredActor) -> Performance:
        # By the digest of what it is made from: an actor that was erased and enrolled anew is another one.
        # The store was asked for the actor first, so that what was erased is never shown from memory.
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
        """End the streams of a person who was erased, and keep nothing of them in memory."""
        self._held.clear()
        for stream in self._running:
            if stream.actor_id == actor_id:
                stream.end()

    def shown(self) -> frozenset[str]:
        """Return the actors of the streams that run now."""
        return frozenset(stream.actor_id for stream in self._running)
