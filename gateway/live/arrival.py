"""When the sound of a live stream came, so that frames which are late can be left out."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from dubstage.audio.v1alpha1 import audio_pb2
from gateway.ahead import ReadAhead
from gateway.live.chain import LiveSound
from services.common.wire.timeline import MOTION_RATE

CONTEXT_FRAMES: Final = 25
"""Frames of sound before the first frame of a stream that goes on where another one broke: the stages hear what came before."""
WAITING_S: Final = 10.0
"""Most seconds of sound that wait in this process for the stages. Further sound stays with its sender."""
_CHUNKS: Final = 1000


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
        channels: number of channels.
        first_frame: first frame of the stream that is shown. The sound begins at `first_frame_of_sound(first_frame)`.
        max_late_s: seconds after the arrival of its sound until which a frame is shown; None: every frame is shown, and no sound is
            taken before the stages ask for it.
    """
    begins = first_frame_of_sound(first_frame)
    if max_late_s is None:
        return LiveSound(chunks, sample_rate_hz, channels, begins, first_frame)
    arrivals = Arrivals(chunks, sample_rate_hz, channels)
    return LiveSound(
        arrivals.chunks(), sample_rate_hz, channels, begins, first_frame, lambda frame: arrivals.came_at(frame) + max_late_s
    )


class Arrivals:
    """Sound that is taken when it comes, at most WAITING_S ahead of the stages.

    Args:
        chunks: consecutive pieces, from sample 0 on.
        sample_rate_hz: samples per second and channel.
        channels: number of channels.
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
