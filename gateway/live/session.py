"""A live stream: a chain of the stages. Each stage pulls from the stage before, and few frames wait beyond look-ahead.

The requests to each stage are made from the answers of the stage before. The arrival of sound is timed, so that frames which are
late can be left out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.actors.stored import StoredActor
from gateway.async_utilities import ReadAhead, close
from gateway.compositing.own_colours import with_own_colours
from gateway.dub.analyse.frame_plan import SILENT_BELOW, at_rest
from gateway.dub.render.windows import BOX, window_config
from gateway.live.admission import MOST_DROPPED, LiveStream
from gateway.live.footage import LiveFootage, StreamMarks
from gateway.live.frames import MovedFrame
from gateway.media.label import LabelPainter
from gateway.media.pixels import ColourTags
from gateway.provenance.seal import SignedDisclosure
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.interface import Stages
from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import NUM_MOUTH_AREA, mouth_opening
from services.common.methods import MouthOptions, TextureInput, method_named
from services.common.wire.convert import from_image, from_tensor, pose_to_proto
from services.common.wire.timeline import MOTION_RATE

MAX_PENDING_FRAMES: Final = 6
"""Most frames of a stream in the texture stage, in the render stage and on the way between the gateway and both.

Each stage computes one frame, and one or two wait for it. Requests to the texture stage are small: flow control of the connection
alone would let hundreds of frames wait there.
"""
CONTEXT_FRAMES: Final = 25
"""Frames of sound before the first frame of a stream that goes on where another one broke: the stages read what came before."""
WAITING_S: Final = 10.0
"""Most seconds of sound that wait in this process for the stages. Further sound stays with its sender."""
_CHUNKS: Final = 1000
T = TypeVar("T")
LOOKAHEAD: Final = 2
"""Replies of a stage that may wait for the next stage: enough that all stages work at the same time, too few to add delay."""


@dataclass(frozen=True, slots=True)
class LiveSound:
    """Speech of a live stream, as it comes.

    Attributes:
        chunks: consecutive pieces of the speech. The first piece begins with sample 0.
        sample_rate_hz: samples per second and channel.
        begins: frame of the stream at which the speech begins.
        first_frame: first frame of the stream that is shown.
        shown_until: returns the instant of `time.monotonic()` until which a frame, counted from the beginning of the speech, may be
            shown. Called once for each frame, in order.
    """

    chunks: AsyncIterator[audio_pb2.AudioChunk]
    sample_rate_hz: int
    channels: int
    begins: int = 0
    first_frame: int = 0
    shown_until: Callable[[int], float] = lambda _: math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveMouth(MouthOptions):
    """How the mouth of a live stream is predicted.

    Attributes:
        look_ahead_frames: frames after a frame whose speech the mouth waits for; None: the predictor's own number.
    """

    look_ahead_frames: int | None = None


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """A frame that the texture stage was sent.

    Attributes:
        index: counted from the beginning of the speech.
        begun: what `LiveStream.begin` returned for the frame.
        silent: whether nobody speaks and the mouth is at rest.
        shown_until: instant of `time.monotonic()` until which the frame may be shown.
        sent: instant of `time.monotonic()` at which the frame was sent.
    """

    index: int
    begun: float
    silent: bool
    shown_until: float
    sent: float


class StageChain:
    """Requests of one live stream to each stage, made from the answers of the stage before."""

    def __init__(
        self,
        actor: StoredActor,
        footage: LiveFootage,
        sound: LiveSound,
        stream: LiveStream,
        *,
        mouth: LiveMouth = LiveMouth(),
        mark: Mark | None = None,
        label: LabelPainter | None = None,
    ) -> None:
        self._method = method_named(actor.method).streamed
        self._style, self._speaking = actor.enrolled.style, actor.enrolled.speaking
        self._config = window_config(self._method, actor.enrolled, detail_scale=footage.detail_scale)
        self._footage = footage
        self._sound = sound
        self._stream = stream
        self._mouth = mouth
        self._label = label
        self._marks = StreamMarks(mark, footage) if mark is not None else None
        self._slots = asyncio.Semaphore(MAX_PENDING_FRAMES)
        self._ended = False
        # One entry per frame that the texture stage was sent, or the renderer, and that was not taken from the renderer.
        self._under_way: deque[PendingFrame] = deque()
        self._moved: deque[MovedFrame] = deque()
        self._took_s = 0.0
        self._last_shown = sound.first_frame - sound.begins - 1

    async def audio_requests(self) -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        """Yield the requests to the audio stage."""
        requests = audio_client.extract_features.requests(
            sample_rate_hz=self._sound.sample_rate_hz,
            channels=self._sound.channels,
            timeline=MOTION_RATE,
            kinds=self._method.features,
        )
        yield requests.config
        async for chunk in self._sound.chunks:
            yield requests.item(chunk)

    async def motion_requests(
        self, features: AsyncIterator[audio_pb2.ExtractFeaturesResponse]
    ) -> AsyncIterator[motion_pb2.PredictMotionRequest]:
        """Yield the requests to the motion stage."""
        requests = motion_client.predict_motion.requests(
            method=self._method.motion.name,
            style=self._style,
            timeline=MOTION_RATE,
            **asdict(self._mouth),
        )
        yield requests.config
        async for reply in features:
            yield requests.item(reply.block)

    async def warp_requests(
        self, motions: AsyncIterator[motion_pb2.PredictMotionResponse]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpRequest]:
        """Yield the requests to the texture stage. A frame waits while MAX_PENDING_FRAMES frames wait for `rendered`."""
        footage = self._footage
        requests = texture_client.retrieve_warp.requests(
            bank=self._config.bank,
            mode=self._config.mode,
            identity=self._config.identity,
            detail_scale=self._config.detail_scale,
        )
        yield requests.config
        async for reply in motions:
            for frame in reply.frames:
                begun = self._stream.begin()
                await self._slots.acquire()
                if self._ended:
                    return
                now, shown_until = time.monotonic(), self._sound.shown_until(frame.frame_index)
                # Behind others, a frame takes as long as the frame that came last.
                comes = now + self._took_s if self._under_way else now
                # From here on, a frame costs most. The stages begin anew after a gap.
                if comes > shown_until and self._stream.may_drop():
                    self._stream.drop()
                    self._slots.release()
                    continue
                self._stream.keep()
                mouth = from_tensor(frame.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
                silent = frame.speech_probability < SILENT_BELOW and bool(at_rest(mouth_opening(mouth), self._speaking))
                self._under_way.append(PendingFrame(frame.frame_index, begun, silent, shown_until, sent=now))
                pose = pose_to_proto(footage.pose(self._sound.begins + frame.frame_index))
                yield requests.item(texture_client.Target(frame.frame_index, frame, pose))

    async def render_requests(
        self, warps: AsyncIterator[texture_pb2.RetrieveWarpResponse]
    ) -> AsyncIterator[render_pb2.RenderRequest]:
        """Yield the requests to the render stage."""
        footage = self._footage
        requests = render_client.render.requests(model=self._method.renderer.name, actor=self._config.state)
        yield requests.config
        async for reply in warps:
            index = self._sound.begins + reply.frame_index
            target = np.frombuffer(reply.box_landmarks.data, "<f4").reshape(-1, 2)
            side = self._config.detail_scale * BOX_SIZE
            detail = from_image(reply.detail, "detail", channels=1, size=(side, side)) if side else None
            own = from_image(reply.warped, "warped", channels=3, size=BOX) if self._config.gives_colours else None
            moved = await asyncio.to_thread(footage.moved, index, target, detail, own)
            self._moved.append(moved)
            yield requests.item(
                render_client.Conditions(
                    frame_index=reply.frame_index,
                    background=moved.background,
                    texture=reply.warped if self._config.renderer.texture is not TextureInput.NONE else None,
                    mask=moved.footage.mask,
                    box_landmarks=reply.box_landmarks,
                )
            )

    def rendered(self) -> tuple[PendingFrame, MovedFrame]:
        """Return the frame that is rendered, and its moved footage. Another frame may take its slot in the stages."""
        self._slots.release()
        frame = self._under_way.popleft()
        self._took_s = time.monotonic() - frame.sent
        return frame, self._moved.popleft()

    def may_skip(self, frame: PendingFrame) -> bool:
        """Return whether a rendered frame is too late and may be left out.

        The frame that follows must be under way, so that the picture does not stand still for longer than MOST_DROPPED frames.
        """
        if time.monotonic() <= frame.shown_until or not self._under_way:
            return False
        return self._under_way[0].index - self._last_shown <= MOST_DROPPED + 1

    def finished(self, reply: render_pb2.RenderResponse, moved: MovedFrame) -> UInt8:
        """Return the frame of the footage with the rendered box and the label in it, uint8 [H, W, 3], RGB."""
        box = from_image(reply.box, "box", channels=3, size=BOX)
        if moved.own is not None:
            box = with_own_colours(box, moved.own, moved.target, inside=self._config.gives_inside)
        self._last_shown = reply.frame_index
        index = self._sound.begins + reply.frame_index
        light = self._marks.light(index) if self._marks is not None else None
        picture = moved.with_mouth(box, moved.footage.mask, light)
        return self._label.picture(picture) if self._label is not None else picture

    def end(self) -> None:
        """Begin no further frame. gRPC reads requests in a task of its own, and may still wait there for a call that has failed."""
        self._ended = True
        self._slots.release()


def first_frame_of_sound(first_frame: int) -> int:
    """Return the frame at which the sound of a stream begins whose first frame is `first_frame`."""
    return max(0, first_frame - CONTEXT_FRAMES)


def first_sample(first_frame: int, sample_rate_hz: int) -> int:
    """Return the sample, per channel, with which the sound of a stream begins whose first frame is `first_frame`."""
    return first_frame_of_sound(first_frame) * sample_rate_hz // int(MOTION_RATE)


def live_sound(
    chunks: AsyncIterator[audio_pb2.AudioChunk],
    sample_rate_hz: int,
    channels: int,
    *,
    first_frame: int = 0,
    max_late_s: float | None = None,
) -> LiveSound:
    """Return the sound of a live stream.

    Args:
        chunks: consecutive pieces, from sample 0 on.
        sample_rate_hz: samples per second and channel.
        first_frame: first frame of the stream that is shown. The sound begins at `first_frame_of_sound(first_frame)`.
        max_late_s: seconds after the arrival of its sound until which a frame is shown; None: every frame is shown, and no sound is
            taken before the stages ask for it.
    """
    begins = first_frame_of_sound(first_frame)
    if max_late_s is None:
        return LiveSound(chunks, sample_rate_hz, channels, begins, first_frame)
    arrivals = SoundArrivals(chunks, sample_rate_hz, channels)
    return LiveSound(
        arrivals.chunks(), sample_rate_hz, channels, begins, first_frame, lambda frame: arrivals.came_at(frame) + max_late_s
    )


class SoundArrivals:
    """Sound that is taken when it comes, at most WAITING_S ahead of the stages.

    Args:
        chunks: consecutive pieces, from sample 0 on.
        sample_rate_hz: samples per second and channel.
        now: returns the present time, seconds.
    """

    def __init__(
        self,
        chunks: AsyncIterator[audio_pb2.AudioChunk],
        sample_rate_hz: int,
        channels: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chunks, self._rate, self._channels, self._now = chunks, sample_rate_hz, channels, now
        self._came: deque[tuple[int, float]] = deque()
        self._room = asyncio.Event()
        self._end = self._taken = 0

    async def chunks(self) -> AsyncGenerator[audio_pb2.AudioChunk, None]:
        """Yield the pieces, while a task takes the next ones."""
        async with aclosing(ReadAhead(self._stamped(), _CHUNKS)) as waiting:
            async for chunk in waiting:
                self._taken = chunk.first_sample + self._samples(chunk)
                self._room.set()
                yield chunk

    def came_at(self, frame: int) -> float:
        """Return the time at which the last sound that a frame shows came; infinite: not yet. Frames are asked for in order.

        Args:
            frame: counted from the beginning of the sound.
        """
        last = (frame + 1) * self._rate // int(MOTION_RATE)
        while self._came and self._came[0][0] < last:
            self._came.popleft()
        return self._came[0][1] if self._came else math.inf

    async def _stamped(self) -> AsyncGenerator[audio_pb2.AudioChunk, None]:
        async for chunk in self._chunks:
            before, self._end = self._end, chunk.first_sample + self._samples(chunk)
            # An empty piece brings no sound. A sender of empty pieces would otherwise fill the memory.
            if self._end > before:
                self._came.append((self._end, self._now()))
            yield chunk
            while self._end - self._taken > WAITING_S * self._rate:
                self._room.clear()
                await self._room.wait()

    def _samples(self, chunk: audio_pb2.AudioChunk) -> int:
        return len(chunk.pcm_f32) // (4 * self._channels)


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One dubbed frame.

    Attributes:
        index: frame on the grid of 25 frames/s.
        picture: uint8 [H, W, 3], RGB.
        silent: whether nobody speaks and the mouth is at rest.
        colour: colour tags for a video of the frames.
        disclosure: signed disclosure record of the stream; None: another frame has it, or none.
    """

    index: int
    picture: UInt8
    silent: bool
    colour: ColourTags = ColourTags()
    disclosure: SignedDisclosure | None = None


async def live_frames(
    stages: Stages,
    actor: StoredActor,
    footage: LiveFootage,
    sound: LiveSound,
    stream: LiveStream,
    *,
    mouth: LiveMouth = LiveMouth(),
    mark: Mark | None = None,
    label: LabelPainter | None = None,
) -> AsyncGenerator[LiveFrame, None]:
    """Yield the dubbed frames of an actor while the sound comes. The last frames follow when the sound ends.

    The streams of the stages are open, and the artefacts of the actor are loaded, before the first chunk is asked for. Closing the
    generator cancels the streams.

    Args:
        actor: enrolled for a method that can be used live.
        footage: footage of the actor that the stream shows.
        sound: the speech.
        stream: gets the time of each frame.
        mouth: how the mouth is predicted.
        mark: watermark of the mouths; None: they get none.
        label: draws the visible label into every frame; None: there is none.

    Raises:
        InvalidRequestError: chunks out of order, or samples that are not finite.
        DubstageError: from the stages.
    """
    chain = StageChain(actor, footage, sound, stream, mouth=mouth, mark=mark, label=label)
    async with AsyncExitStack() as stack:
        stack.callback(chain.end)

        def closed(source: AsyncIterator[T]) -> AsyncIterator[T]:
            stack.push_async_callback(close, source)
            return source

        def ahead(replies: AsyncIterator[T]) -> ReadAhead[T]:
            reader = ReadAhead(replies, LOOKAHEAD)
            stack.push_async_callback(close, reader)
            return reader

        features = ahead(stages.stream(rpcs.audio.EXTRACT_FEATURES, closed(chain.audio_requests())))
        motions = ahead(stages.stream(rpcs.motion.PREDICT_MOTION, closed(chain.motion_requests(features))))
        warps = ahead(stages.stream(rpcs.texture.RETRIEVE_WARP, closed(chain.warp_requests(motions))))
        replies = ahead(stages.stream(rpcs.render.RENDER, closed(chain.render_requests(warps))))
        async for reply in replies:
            frame, moved = chain.rendered()
            index = sound.begins + reply.frame_index
            if index < sound.first_frame:
                continue
            # A late frame is left out if a newer one is ready: a slow reader gets the newer frame at once.
            if replies.has_waiting and chain.may_skip(frame):
                stream.drop()
                continue
            picture = await asyncio.to_thread(chain.finished, reply, moved)
            stream.took(frame.begun)
            with stream.given():
                yield LiveFrame(index, picture, frame.silent, footage.colour)
