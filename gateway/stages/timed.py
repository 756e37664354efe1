"""Stages with a clock: how long each call took, for reports and the bench."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import Message

from dubstage.client import rpcs
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.ahead import close
from gateway.stages.interface import Stages
from gateway.stages.times import StageClock

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Label(NamedTuple):
    """How a clock counts the calls of one RPC.

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


LABELS: Final[dict[Rpc[Any, Any], Label]] = {
    rpcs.audio.EXTRACT_FEATURES: Label("audio", _in_block),
    rpcs.face.TRACK: Label("face", _listed),
    rpcs.face.FIT_IDENTITY: Label("identity"),
    rpcs.motion.PREDICT_MOTION: Label("motion", _listed),
    rpcs.motion.ENCODE_STYLE: Label("style"),
    rpcs.motion.ESTIMATE_LAG: Label("lag"),
    rpcs.motion.PERSONALIZE: Label("personalize motion"),
    rpcs.texture.BUILD_BANK: Label("bank"),
    rpcs.texture.RETRIEVE_WARP: Label("texture", _one),
    rpcs.texture.SELECT_FRAMES: Label("retiming"),
    rpcs.texture.MATCH_BACKGROUNDS: Label("backgrounds"),
    rpcs.texture.ROTATE_PORTRAIT: Label("portrait", _one),
    rpcs.texture.SAMPLE_NEURAL_TEXTURE: Label("neural texture", _one),
    rpcs.render.RENDER: Label("render", _one),
    rpcs.render.PERSONALIZE: Label("personalize renderer"),
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

    async def _stream(self, label: Label, replies: AsyncIterator[T]) -> AsyncIterator[T]:
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
