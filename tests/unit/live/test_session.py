"""Tests of live streams: few frames wait between the stages, and sound is bounded and timed."""

from __future__ import annotations

import asyncio
import math
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs, to_image, to_tensor
from dubstage.client.gateway import live_first_sample
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.compositing.jaw import JawMove
from gateway.live import session
from gateway.live.admission import MOST_DROPPED, LiveAdmission, LiveStream
from gateway.live.frames import FootageFrame, MovedFrame
from gateway.live.session import (
    MAX_PENDING_FRAMES,
    WAITING_S,
    LiveFrame,
    LiveSound,
    SoundArrivals,
    first_sample,
    live_frames,
    live_sound,
)
from gateway.media.pixels import ColourTags
from services.common.array_types import Float32, UInt8
from services.common.errors import BackendUnavailableError
from services.common.face.crops import HeadPose

RATE = 1000
SECOND = np.zeros(RATE, "<f4").tobytes()
HOURS = 8
PIECE = 200
"""Samples of a piece: five frames."""
BOX = to_image(np.zeros((160, 160, 3), np.uint8))
WARPED = to_image(np.full((160, 160, 3), 7, np.uint8))
DETAIL = to_image(np.zeros((160, 160), np.uint8))
LANDMARKS = to_tensor(np.zeros((59, 2), np.float32))
FRAME = FootageFrame(
    picture=np.zeros((4, 4, 3), np.uint8),
    pose=HeadPose(1.0, np.eye(3), np.zeros(3)),
    box=np.zeros((160, 160, 3), np.uint8),
    mask=np.zeros((160, 160), np.uint8),
    filmed=np.zeros((59, 2), np.float32),
    movable=np.zeros((160, 160), np.bool_),
)
MOVED = MovedFrame(FRAME, JawMove(np.zeros((160, 160, 2), np.float32), np.zeros((160, 160), np.uint8)), FRAME.box, FRAME.filmed)
SHOW: Any = SimpleNamespace(
    colour=ColourTags(),
    detail_scale=1,
    pose=lambda index: FRAME.pose,
    moved=lambda index, target, detail, own: replace(MOVED, own=own),
)
REF = common_pb2.ArtefactRef(uri="file:///a", sha256="0" * 64)
ENROLLED = SimpleNamespace(
    style=REF, bank=REF, renderer=None, geometry=None, identity=None, renderer_trained=False, num_frames=100, speaking=None
)
SHUT = to_tensor(np.zeros((59, 3), np.float32))
ANN: Any = SimpleNamespace(actor_id="ann", method="dubstage", enrolled=ENROLLED)


class Speaker:
    """A second of sound after the other, each ten seconds later by the clock that frames are dated with."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.said = 0

    async def chunks(self) -> AsyncIterator[audio_pb2.AudioChunk]:
        for number in range(self.seconds):
            self.now = 10.0 * number
            self.said += 1
            yield audio_pb2.AudioChunk(first_sample=number * RATE, pcm_f32=SECOND)


async def settled(speaker: Speaker) -> int:
    """Number of pieces that were taken when no further one is."""
    before = -1
    while before != speaker.said:
        before = speaker.said
        for _ in range(20):
            await asyncio.sleep(0)
    return before


async def test_frame_dated_by_last_sound() -> None:
    """A frame is dated with the last sound that it shows."""
    speaker = Speaker(4)
    arrivals = SoundArrivals(speaker.chunks(), RATE, 1, lambda: speaker.now)
    assert [chunk.first_sample async for chunk in arrivals.chunks()] == [0, RATE, 2 * RATE, 3 * RATE]
    # Frames 0 to 24 show the first second, which came at 0 s.
    assert [arrivals.came_at(frame) for frame in (0, 24, 25, 99, 100)] == [0.0, 0.0, 10.0, 30.0, math.inf]


@pytest.mark.parametrize("drift", [-1e-4, 1e-4])
async def test_clocks_that_drift_stay_in_step(drift: float) -> None:
    """A sender whose clock is off by 100 ppm is 2.9 s ahead of or behind the gateway's clock after eight hours.

    Frames follow the samples, and are late by the arrival of their samples: no frame is dropped, and nothing piles up.
    """
    clock = SimpleNamespace(now=0.0)
    number_of_pieces = HOURS * 3600 * RATE // PIECE
    silence = np.zeros(PIECE, "<f4").tobytes()

    async def microphone() -> AsyncIterator[audio_pb2.AudioChunk]:
        for number in range(number_of_pieces):
            # The piece comes when its last sample was spoken, by the sender's clock.
            clock.now = (number + 1) * PIECE / RATE * (1.0 + drift)
            yield audio_pb2.AudioChunk(first_sample=number * PIECE, pcm_f32=silence)

    arrivals = SoundArrivals(microphone(), RATE, 1, lambda: clock.now)
    frames, heard, waiting, off = 0, 0, 0, []
    async for chunk in arrivals.chunks():
        heard += len(chunk.pcm_f32) // 4
        while (frames + 1) * RATE // 25 <= heard:
            # Seconds from the frame's last sample, by the sender's clock, to the frame's date by the gateway's clock.
            off.append(arrivals.came_at(frames) - (frames + 1) / 25 * (1.0 + drift))
            frames += 1
        waiting = max(waiting, len(arrivals._came))
    assert frames == HOURS * 3600 * 25 == 720_000
    # The first frames of a piece wait for the piece, and its last frame waits for nothing.
    assert min(off) > -1e-4
    assert max(off) < PIECE / RATE - 1 / 25 + 1e-4
    assert abs(np.mean(off[-90_000:]) - np.mean(off[:90_000])) < 1e-6
    assert waiting <= WAITING_S * RATE / PIECE + 5


async def test_sound_queue_is_bounded() -> None:
    """Sound waits within a bound and the rest stays with its sender."""
    speaker = Speaker(100)
    arrivals = SoundArrivals(speaker.chunks(), RATE, 1)
    async with aclosing(arrivals.chunks()) as chunks:
        await anext(chunks)
        first = await settled(speaker)
        assert WAITING_S < first <= WAITING_S + 3
        for _ in range(5):
            await anext(chunks)
        assert await settled(speaker) == first + 5


async def test_pieces_without_sound_take_no_memory() -> None:
    async def empty() -> AsyncIterator[audio_pb2.AudioChunk]:
        for _ in range(20_000):
            yield audio_pb2.AudioChunk(first_sample=0)

    arrivals = SoundArrivals(empty(), RATE, 1)
    async with aclosing(arrivals.chunks()) as chunks:
        await anext(chunks)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        count = len([chunk async for chunk in chunks])
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 20_000 - 1
    assert after - before < 200_000


async def test_every_frame_mode_bounds_sound() -> None:
    """Sound for which the client asks for every frame is not taken ahead."""
    speaker = Speaker(100)
    sound = live_sound(speaker.chunks(), RATE, 1)
    await anext(sound.chunks)
    assert await settled(speaker) == 1
    assert sound.shown_until(0) == math.inf


async def test_lateness_bound_per_stream() -> None:
    """Frames are late by the bound of their stream."""
    speaker = Speaker(2)
    sound = live_sound(speaker.chunks(), RATE, 1, first_frame=60, max_late_s=3600.0)
    assert [chunk.first_sample async for chunk in sound.chunks] == [0, RATE]
    assert (sound.begins, sound.first_frame) == (35, 60)
    assert 0 <= time.monotonic() + 3600.0 - sound.shown_until(0) < 600


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 192000])
def test_client_and_gateway_agree_on_sound(rate: int) -> None:
    """Client and gateway agree where the sound of a later frame begins."""
    assert [first_sample(frame, rate) for frame in (0, 25, 26, 1000)] == [0, 0, rate // 25, 975 * rate // 25]
    assert all(first_sample(frame, rate) == live_first_sample(frame, rate) for frame in range(100))


@dataclass
class Stages:
    """Stages that make one frame of each piece of sound. Connections to the stages hold any number of requests.

    Attributes:
        sent: number of frames that the texture stage was sent.
        breaks_at: frame at which the texture stage goes away; None: it stays.
    """

    sent: int = 0
    breaks_at: int | None = None
    face_model: str = ""
    call_deadline_s: float | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def stream(self, rpc: Any, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        waiting: asyncio.Queue[Any] = asyncio.Queue()

        async def read() -> None:
            try:
                async for request in requests:
                    self.sent += rpc == rpcs.texture.RETRIEVE_WARP and request.HasField("frame")
                    waiting.put_nowait(request)
            finally:
                waiting.put_nowait(None)

        # As gRPC does, in a task that nobody waits for, and that goes on when the call has failed.
        task = asyncio.create_task(read())
        self.tasks.add(task)
        assert (await waiting.get()).HasField("config")
        number = 0
        while (request := await waiting.get()) is not None:
            yield self._reply(rpc, request, number)
            number += 1
        await task

    def _reply(self, rpc: Any, request: Any, number: int) -> Any:
        match rpc:
            case rpcs.audio.EXTRACT_FEATURES:
                return audio_pb2.ExtractFeaturesResponse()
            case rpcs.motion.PREDICT_MOTION:
                return motion_pb2.PredictMotionResponse(frames=[motion_pb2.MotionFrame(frame_index=number, mouth_landmarks=SHUT)])
            case rpcs.texture.RETRIEVE_WARP:
                index = request.frame.frame_index
                if index == self.breaks_at:
                    raise BackendUnavailableError("the texture stage went away")
                return texture_pb2.RetrieveWarpResponse(frame_index=index, warped=WARPED, box_landmarks=LANDMARKS, detail=DETAIL)
            case _:
                return render_pb2.RenderResponse(frame_index=request.frame.frame_index, box=BOX)


@pytest.fixture
def stream() -> Iterator[LiveStream]:
    with ExitStack() as stack:
        yield stack.enter_context(LiveAdmission(1).stream("ann"))


async def pieces(count: int) -> AsyncIterator[audio_pb2.AudioChunk]:
    for number in range(count):
        yield audio_pb2.AudioChunk(first_sample=640 * number, pcm_f32=bytes(4 * 640))


async def stands_still(stages: Stages) -> int:
    """Number of frames that the texture stage was sent when no further one is."""
    before = -1
    while before != stages.sent:
        before = stages.sent
        for _ in range(200):
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
    return before


def frames_of(stages: Any, sound: LiveSound, stream: LiveStream) -> AsyncGenerator[LiveFrame, None]:
    return live_frames(stages, ANN, SHOW, sound, stream)


async def test_unread_frames_are_few(stream: LiveStream) -> None:
    """Few frames are under way while the reader takes none."""
    stages = Stages()
    async with aclosing(frames_of(stages, LiveSound(pieces(400), 16000, 1), stream)) as frames:
        for taken in range(1, 20):
            assert (await anext(frames)).index == taken - 1
            assert await stands_still(stages) <= taken + MAX_PENDING_FRAMES
        assert [frame.index async for frame in frames] == [*range(19, 400)]
    assert all(task.done() for task in stages.tasks)


async def test_returning_reader_gets_new_frame(stream: LiveStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who was away gets a new frame and the late ones are left out."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: clock.now))
    stages = Stages()
    # The sound of frame n comes at n / 25 s, and each frame may be a second late.
    sound = LiveSound(pieces(400), 16000, 1, shown_until=lambda frame: frame / 25 + 1.0)
    async with aclosing(frames_of(stages, sound, stream)) as frames:
        assert (await anext(frames)).index == 0
        await stands_still(stages)
        clock.now = 10.0
        later = [frame.index async for frame in frames]
    # The picture never stands still for longer than a second, and frames come that are in time.
    assert max(np.diff([0, *later])) <= MOST_DROPPED + 1
    late = [index for index in later if index / 25 + 1.0 < clock.now]
    assert len(late) <= 225 / MOST_DROPPED + MAX_PENDING_FRAMES
    assert later[len(late) :] == [*range(225, 400)]
    assert stream.dropped == 400 - 1 - len(later)


@pytest.mark.parametrize(("method", "coloured"), [("dubstage", 0), ("dubstage+everybody", 5), ("everybody", 0)])
async def test_mouths_take_the_banks_colours(
    method: str, coloured: int, stream: LiveStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mouth of each frame takes the colours of the bank's mouth, if the renderer has its own and the finish is `bank`.

    Without that finish, the texture stage is asked for no detail.
    """
    seen: list[tuple[bool, bool]] = []

    def with_own_colours(box: UInt8, own: UInt8, landmarks: Float32, *, inside: bool) -> UInt8:
        seen.append((bool((own == 7).all()), inside))
        return box

    monkeypatch.setattr(session, "with_own_colours", with_own_colours)
    actor: Any = SimpleNamespace(actor_id="ann", method=method, enrolled=ENROLLED)
    details: list[UInt8 | None] = []

    def moved(index: int, target: Float32, detail: UInt8 | None, own: UInt8 | None) -> MovedFrame:
        details.append(detail)
        return replace(MOVED, own=own)

    show: Any = SimpleNamespace(**{**vars(SHOW), "moved": moved})
    async with aclosing(live_frames(Stages(), actor, show, LiveSound(pieces(5), 16000, 1), stream)) as frames:
        assert [frame.index async for frame in frames] == [*range(5)]
    assert [detail is not None for detail in details] == [method != "everybody"] * 5
    assert seen == [(True, True)] * coloured


async def test_lost_stage_ends_stream(stream: LiveStream) -> None:
    """A stage that goes away ends the stream and nothing waits for a place."""
    stages = Stages(breaks_at=30)
    async with aclosing(frames_of(stages, LiveSound(pieces(400), 16000, 1), stream)) as frames:
        assert [(await anext(frames)).index for _ in range(30)] == [*range(30)]
        with pytest.raises(BackendUnavailableError):
            await anext(frames)
    _, waiting = await asyncio.wait(stages.tasks, timeout=30)
    assert not waiting


async def test_a_reader_who_leaves_ends_everything(stream: LiveStream) -> None:
    stages = Stages()
    async with aclosing(frames_of(stages, LiveSound(pieces(400), 16000, 1), stream)) as frames:
        await anext(frames)
        await stands_still(stages)
    _, waiting = await asyncio.wait(stages.tasks, timeout=30)
    assert not waiting
