"""Time that each stage of a dub took: filled by stages with a clock, shown by reports and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import Message

from dubstage.client import rpcs
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.async_utilities import close
from gateway.stages.interface import Stages

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time spent in one stage.

    Attributes:
        name: such as "decode", "track", "motion", "render", "encode".
        wall_s: seconds from call to reply, summed over calls. Stages overlap, so their times add up to more than the whole.
        cpu_s: processor seconds of the stage, 0 if unknown.
        frames: frames that the stage answered, over all calls; 0 if it does not work by frames.
    """

    name: str
    wall_s: float
    cpu_s: float
    frames: int

    @property
    def ms_per_frame(self) -> float:
        """Return milliseconds per frame."""
        return 1000.0 * self.wall_s / self.frames if self.frames else 0.0

    @property
    def frames_per_second(self) -> float:
        """Return frames per second of this stage alone."""
        return self.frames / self.wall_s if self.wall_s > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class StageTimes:
    """All times of one dub.

    Attributes:
        stages: in the order of the chain.
        end_to_end_s: wall-clock seconds from the first packet read to the video's file closed, without personalisation.
        personalize_s: wall-clock seconds of making and personalising the actor; 0 if an actor was reused.
        cpu_s: processor seconds of the process over the whole run, personalisation included; 0 if unknown.
    """

    stages: tuple[StageTime, ...]
    frames: int
    end_to_end_s: float
    personalize_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Return wall-clock seconds of the whole run, personalisation included."""
        return self.end_to_end_s + self.personalize_s

    @property
    def frames_per_second(self) -> float:
        """Return frames per second from end to end, without personalisation."""
        return self.frames / self.end_to_end_s if self.end_to_end_s > 0.0 else 0.0


@dataclass(slots=True)
class _Sum:
    wall_s: float = 0.0
    cpu_s: float = 0.0
    frames: int = 0


@dataclass(slots=True)
class StageClock:
    """Sums of the time of stages. Stages may overlap and come from several threads."""

    _sums: dict[str, _Sum] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, *, wall_s: float, frames: int, cpu_s: float = 0.0) -> None:
        """Add one call of a stage."""
        with self._lock:
            total = self._sums.setdefault(name, _Sum())
            total.wall_s += wall_s
            total.cpu_s += cpu_s
            total.frames += frames

    @contextmanager
    def measure(self, name: str, frames: int) -> Iterator[None]:
        """Time a block; the processor time is that of the calling thread."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(name, wall_s=time.perf_counter() - wall, cpu_s=time.thread_time() - cpu, frames=frames)

    def stages(self) -> tuple[StageTime, ...]:
        """Return the times, in the order in which stages first reported."""
        with self._lock:
            return tuple(StageTime(name, s.wall_s, s.cpu_s, s.frames) for name, s in self._sums.items())


class CallLabel(NamedTuple):
    """Settings for a clock's count of the calls of one RPC.

    Attributes:
        name: of the row in reports.
        frames_in: number of frames that a reply of a stream answers; None: the calls count no frames.
    """

    name: str
    frames_in: Callable[[Any], int] | None = None


def _one(_: Message) -> int:
    return 1


def _listed(reply: Any) -> int:
    return len(reply.frames)


def _in_block(reply: Any) -> int:
    return int(reply.block.num_frames)


LABELS: Final[dict[Rpc[Any, Any], CallLabel]] = {
    rpcs.audio.EXTRACT_FEATURES: CallLabel("audio", _in_block),
    rpcs.face.TRACK: CallLabel("face", _listed),
    rpcs.face.FIT_IDENTITY: CallLabel("identity"),
    rpcs.motion.PREDICT_MOTION: CallLabel("motion", _listed),
    rpcs.motion.ENCODE_STYLE: CallLabel("style"),
    rpcs.motion.ESTIMATE_LAG: CallLabel("lag"),
    rpcs.motion.PERSONALIZE: CallLabel("personalize motion"),
    rpcs.texture.BUILD_BANK: CallLabel("bank"),
    rpcs.texture.RETRIEVE_WARP: CallLabel("texture", _one),
    rpcs.texture.SELECT_INSIDES: CallLabel("insides", _one),
    rpcs.texture.SELECT_FRAMES: CallLabel("retiming"),
    rpcs.texture.MATCH_BACKGROUNDS: CallLabel("backgrounds"),
    rpcs.texture.ROTATE_PORTRAIT: CallLabel("portrait", _one),
    rpcs.texture.SAMPLE_NEURAL_TEXTURE: CallLabel("neural texture", _one),
    rpcs.render.RENDER: CallLabel("render", _one),
    rpcs.render.PERSONALIZE: CallLabel("personalize renderer"),
}
"""RPCs that are timed. Other RPCs (ListModels) are passed on without a clock."""


class TimedStages:
    """`Stages` that passes every call on and counts its wall time: from call to last reply, upstream waits included."""

    def __init__(self, stages: Stages, clock: StageClock) -> None:
        self._stages = stages
        self._clock = clock

    @property
    def call_deadline_s(self) -> float | None:
        """Longest time of one call, seconds; None: calls have no deadline."""
        return self._stages.call_deadline_s

    @property
    def face_model(self) -> str:
        """Name of the face model that people are fitted on."""
        return self._stages.face_model

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response."""
        return await self._single(rpc, self._stages.unary(rpc, request))

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response."""
        return await self._single(rpc, self._stages.upload(rpc, requests))

    def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        return self._many(rpc, self._stages.download(rpc, request))

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        return self._many(rpc, self._stages.stream(rpc, requests))

    def _many(self, rpc: Rpc[Q, R], replies: AsyncIterator[R]) -> AsyncIterator[R]:
        label = LABELS.get(rpc)
        return replies if label is None else self._stream(label, replies)

    async def _stream(self, label: CallLabel, replies: AsyncIterator[T]) -> AsyncIterator[T]:
        began, frames = time.perf_counter(), 0
        try:
            async for reply in replies:
                frames += label.frames_in(reply) if label.frames_in is not None else 0
                yield reply
        finally:
            await close(replies)
            self._clock.add(label.name, wall_s=time.perf_counter() - began, frames=frames)

    async def _single(self, rpc: Rpc[Q, R], reply: Awaitable[R]) -> R:
        label = LABELS.get(rpc)
        if label is None:
            return await reply
        began = time.perf_counter()
        try:
            return await reply
        finally:
            self._clock.add(label.name, wall_s=time.perf_counter() - began, frames=0)
