"""Opens live streams: checks who may be shown, records each stream, and ends a stream at once when its actor is erased or its
consent does not hold any more.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from dubstage.audio.v1 import audio_pb2
from gateway.actors.consents import Consents
from gateway.actors.job_blobs import erased_meanwhile
from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.async_utilities import in_thread
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.work import recorded, watermark_details
from gateway.consent.record import ConsentUse
from gateway.dub.request.claim import video_watermark
from gateway.live.admission import LiveAdmission
from gateway.live.footage import FootageCache
from gateway.live.recording import stream_mark, streamed_actor
from gateway.live.session import LiveFrame, LiveMouth, first_frame_of_sound, live_frames, live_sound
from gateway.media.label import Label, LabelPainter
from gateway.media.pixels import ColourTags
from gateway.provenance.seal import Sealer, SignedDisclosure
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from services.common.array_types import UInt8
from services.common.errors import DubstageError, TransientError
from services.common.methods import method_named
from services.common.server import error_status
from services.common.server.call_context import current_caller
from services.common.store.artefacts import ArtefactStore

POLL_S: Final = 0.25
"""Seconds between two looks whether the consent for a stream still holds."""


async def allowed_actor(actors: ActorStore, stages: Stages, actor_id: str, use: ConsentUse) -> StoredActor:
    """Return the actor of a stream, who may be shown now.

    Raises:
        ActorError: there is no such actor.
        ConsentRefusedError: the actor's consent record does not allow the stream, or is missing and required.
        ModelNotFoundError: the stages do not have the actor's method.
    """
    actor = await asyncio.to_thread(actors.get, actor_id)
    await asyncio.to_thread(actors.consents.check_enrolled, actor.consent, None, use, actor_id, actor_id=actor_id)
    await models_for(stages, method_named(actor.method).streamed)
    return actor


def recorded_stream(actors: ActorStore, actor: StoredActor, mark: Mark | None) -> AbstractAsyncContextManager[object]:
    """Record in the audit log that a stream begins, and how it ends."""
    return recorded(actors.audit, _begun(actor, mark))


def _begun(actor: StoredActor, mark: Mark | None) -> AuditEvent:
    """Return what the audit log records when a stream begins."""
    work = f"live/{secrets.token_hex(16)}"
    details = {"method": actor.method} | watermark_details(video_watermark(mark, dubbed=True))
    return AuditEvent(event=EventKind.LIVE_BEGUN, work=work, actor_ids=(actor.actor_id,), details=details)


@dataclass(eq=False, slots=True)
class RunningStream:
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
async def ended_with_consent(stream: RunningStream, actor: StoredActor, consents: Consents) -> AsyncIterator[None]:
    """End a stream as soon as the consent for the stream is withdrawn, in any process, or its time is over."""
    watch = asyncio.create_task(_watch(stream, actor, consents))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(stream: RunningStream, actor: StoredActor, consents: Consents) -> None:
    while stream.refusal is None:
        try:
            await in_thread(lambda: consents.check_lasting([actor.consent], subject=actor.actor_id))
        except TransientError:
            pass  # a database that restarts ends no stream
        except Exception as problem:
            # A look that fails for another reason ends the stream too: no later look would say that the consent is withdrawn.
            stream.end(error_status.domain_error(problem))
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Disclosing:
    """How a stream says that its pictures are synthetic, besides the watermark.

    Attributes:
        label: visible label of every frame; None: there is none.
        record: whether the first frame comes with the signed disclosure record of the stream.
    """

    label: Label | None = None
    record: bool = False


def _painter(label: Label | None, picture: UInt8, colour: ColourTags) -> LabelPainter | None:
    """Return the painter of a label for pictures of the size of `picture`; None: there is no label."""
    height, width, _ = picture.shape
    return LabelPainter.of_pictures(label, colour, width, height) if label is not None else None


class LiveStreams:
    """Live streams of one process.

    Args:
        stages: returns the stages, once they are open.
        actors: store of actors.
        max_message_bytes: size limit of a message, which has to hold one frame.
        admission: decides which streams run, together with the streams of other tenants; None: one stream at a time.
        sealer: signs disclosure records and has the key of the watermarks; None: streams have neither.
    """

    def __init__(
        self,
        stages: Callable[[], Stages],
        actors: ActorStore,
        artefacts: ArtefactStore,
        *,
        max_message_bytes: int,
        admission: LiveAdmission | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        self._sealer = sealer
        self._stages = stages
        self._actors = actors
        self._admission = admission or LiveAdmission(1)
        self._footages = FootageCache(artefacts, max_message_bytes)
        self._running: list[RunningStream] = []

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
        mouth: LiveMouth = LiveMouth(),
        disclosing: Disclosing = Disclosing(),
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
            mouth: how the mouth is predicted.
            disclosing: how the stream says that it is synthetic, besides the watermark.

        Raises:
            ActorError: no such actor, the actor cannot be shown live, or the actor was erased meanwhile.
            ConsentRefusedError: the actor's consent record does not allow the stream, ends meanwhile, or is missing and required.
            ModelNotFoundError: the stages do not have the actor's method.
            OverloadedError: no further stream is taken now.
            BackendUnavailableError, InvalidRequestError: the disclosure record cannot be signed.
            InvalidRequestError: the actor's method does not have this look-ahead.
            DubstageError: from the stages.
        """
        with self._admission.stream(current_caller().tenant) as stream:
            mine = RunningStream(actor_id)
            self._running.append(mine)
            try:
                actor = await allowed_actor(self._actors, self._stages(), actor_id, use)
                method_named(actor.method).streamed.motion.check_look_ahead(mouth.look_ahead_frames, "config.look_ahead_frames")
                footage = await self._footages.of(actor)
                # The first picture is there before the first sound is asked for.
                first = await asyncio.to_thread(footage.frame, first_frame_of_sound(first_frame))
                painter = await asyncio.to_thread(_painter, disclosing.label, first.picture, footage.colour)
                mark = stream_mark(actor, self._sealer) if self._sealer is not None else None
                disclosure = await self._disclosure(actor, mark) if disclosing.record else None
                async with recorded_stream(self._actors, actor, mark):
                    # This check is the last: from here on, `forget` ends the stream.
                    await asyncio.to_thread(self._actors.erasures.check, actor_id)
                    sound = live_sound(audio, sample_rate_hz, channels, first_frame=first_frame, max_late_s=max_late_s)
                    frames = live_frames(
                        self._stages(),
                        actor,
                        footage,
                        sound,
                        stream,
                        mouth=mouth,
                        mark=mark,
                        label=painter,
                    )
                    async with aclosing(frames), ended_with_consent(mine, actor, self._actors.consents):
                        while (frame := await mine.next_of(frames)) is not None:
                            mine.check()
                            yield replace(frame, disclosure=disclosure) if disclosure is not None else frame
                            disclosure = None
            finally:
                self._running.remove(mine)

    async def _disclosure(self, actor: StoredActor, mark: Mark | None) -> SignedDisclosure | None:
        if self._sealer is None:
            return None
        claim = (await streamed_actor(actor, self._stages(), mark)).claim()
        return await asyncio.to_thread(self._sealer.disclosure, claim)

    def forget(self, actor_id: str) -> None:
        """End the streams of an actor who was erased, and remove all footage from memory."""
        self._footages.clear()
        for stream in self._running:
            if stream.actor_id == actor_id:
                stream.erase()

    def shown(self) -> frozenset[str]:
        """Return the ids of the actors whose streams run now."""
        return frozenset(stream.actor_id for stream in self._running)
