"""Opening of live streams: who may be shown, how many streams run at the same time, and which footage is kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from dubstage.audio.v1alpha1 import audio_pb2
from gateway.actors.store import ActorStore
from gateway.consent.record import ConsentUse
from gateway.live.admission import LiveAdmission
from gateway.live.arrival import live_sound
from gateway.live.held import HeldPerformances
from gateway.live.opening import allowed_actor, recorded_stream
from gateway.live.running import Running, ended_with_consent
from gateway.live.session import LiveFrame, live_frames
from gateway.stages.interface import Stages
from services.common.server.call_context import current_caller
from services.common.store.artefacts import ArtefactStore


class LiveStreams:
    """Live streams of one process.

    Args:
        stages: returns the stages, once they are open.
        actors: store of actors.
        artefacts: artefact store of the stages.
        max_message_bytes: size limit of a message, which has to hold one frame.
        admission: decides which streams run, together with the streams of other tenants; None: one stream at a time.
    """

    def __init__(
        self,
        stages: Callable[[], Stages],
        actors: ActorStore,
        artefacts: ArtefactStore,
        *,
        max_message_bytes: int,
        admission: LiveAdmission | None = None,
    ) -> None:
        self._stages = stages
        self._actors = actors
        self._admission = admission or LiveAdmission(1)
        self._performances = HeldPerformances(artefacts, max_message_bytes)
        self._running: list[Running] = []

    async def frames(
        self,
        actor_id: str,
        audio: AsyncIterator[audio_pb2.AudioChunk],
        *,
        sample_rate_hz: int,
        channels: int,
        use: ConsentUse = ConsentUse(),
        first_frame: int = 0,
        max_late_s: float | None = None,
        expressiveness: float = 1.0,
    ) -> AsyncGenerator[LiveFrame, None]:
        """Yield the dubbed frames of an actor while `audio` comes. The first chunk is asked for when everything else is ready.

        Args:
            actor_id: the actor to show.
            audio: the sound, in order.
            sample_rate_hz: sample rate of the sound.
            channels: number of channels of the sound.
            use: project and language of the stream, which the actor's consent record must cover.
            first_frame: first frame that is shown. The sound begins with sample `first_sample(first_frame, sample_rate_hz)`, which
                counts as sample 0.
            max_late_s: seconds after the arrival of its sound until which a frame is shown; None: every frame is shown.
            expressiveness: factor of the mouth's movement.

        Raises:
            ActorNotReady: no such actor, the actor cannot be shown live, or the actor was erased meanwhile.
            ConsentRefused: the actor's consent record does not allow the stream, ends meanwhile, or is missing and required.
            ModelNotFound: the stages do not have the actor's method.
            Overloaded: no further stream is taken now.
            DubstageError: from the stages.
        """
        with self._admission.stream(current_caller().tenant) as stream:
            mine = Running(actor_id)
            self._running.append(mine)
            try:
                actor = await allowed_actor(self._actors, self._stages(), actor_id, use)
                performance = await self._performances.of(actor)
                async with recorded_stream(self._actors, actor):
                    # This check is the last: from here on, `forget` ends the stream.
                    await asyncio.to_thread(self._actors.erasures.check, actor_id)
                    sound = live_sound(audio, sample_rate_hz, channels, first_frame=first_frame, max_late_s=max_late_s)
                    frames = live_frames(self._stages(), actor, performance, sound, stream, expressiveness=expressiveness)
                    async with aclosing(frames), ended_with_consent(mine, actor, self._actors.consents):
                        while (frame := await mine.next_of(frames)) is not None:
                            mine.check()
                            yield frame
            finally:
                self._running.remove(mine)

    def forget(self, actor_id: str) -> None:
        """End the streams of an actor who was erased, and remove all footage from memory."""
        self._performances.clear()
        for stream in self._running:
            if stream.actor_id == actor_id:
                stream.erase()

    def shown(self) -> frozenset[str]:
        """Return the ids of the actors whose streams run now."""
        return frozenset(stream.actor_id for stream in self._running)
