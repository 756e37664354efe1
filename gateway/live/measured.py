"""Speech that is sent to a live stream at the pace of speaking, and the latency of each frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dubstage.audio.v1alpha1 import audio_pb2
from services.common.array_types import Float32
from services.common.wire.timeline import MOTION_RATE

CHUNK_SECONDS: Final = 0.02


@dataclass(slots=True)
class SpokenSpeech:
    """Speech in chunks of 20 ms. Each chunk is sent when its last sample would have been spoken.

    Attributes:
        samples: float32 [n, channels].
        sample_rate_hz: samples per second and channel.
        in_real_time: whether chunks are sent at the pace of speaking. False: as fast as they are taken.
        began: time of the first sample by `time.monotonic()`; None: no chunk was asked for yet.
        given: time at which each chunk was sent.
    """

    samples: Float32
    sample_rate_hz: int
    in_real_time: bool = True
    began: float | None = None
    given: list[float] = field(default_factory=list)

    @property
    def chunk_samples(self) -> int:
        """Number of samples per chunk and channel."""
        return int(CHUNK_SECONDS * self.sample_rate_hz)

    async def chunks(self) -> AsyncIterator[audio_pb2.AudioChunk]:
        """Yield the chunks of the speech from the first sample on."""
        self.began = time.monotonic()
        for first in range(0, len(self.samples), self.chunk_samples):
            piece = self.samples[first : first + self.chunk_samples]
            if self.in_real_time:
                spoken = self.began + (first + len(piece)) / self.sample_rate_hz
                await asyncio.sleep(max(0.0, spoken - time.monotonic()))
            self.given.append(time.monotonic())
            yield audio_pb2.AudioChunk(first_sample=first, pcm_f32=np.ascontiguousarray(piece, "<f4").tobytes())

    def latency_s(self, index: int) -> float:
        """Return the seconds since the last sound that frame `index` shows was sent."""
        last_sample = (index + 1) * self.sample_rate_hz // int(MOTION_RATE)
        chunk = min(max(0, -(-last_sample // self.chunk_samples) - 1), len(self.given) - 1)
        return time.monotonic() - self.given[chunk]
