"""Speech fed to a live stream as if it were spoken now, and the time that each frame takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.audio.v1alpha1 import audio_pb2
from services.common.timeline import MOTION_RATE

CHUNK_SECONDS: Final = 0.02


@dataclass(slots=True)
class SpokenSpeech:
    """PCM in chunks of 20 ms, each given when its last sample would have been spoken.

    Attributes:
        samples: float32 [n, channels].
        sample_rate_hz: of them.
        in_real_time: False: as fast as it is taken.
        began: instant of `time.monotonic()` of the first sample, once it is asked for.
        given: instant at which each chunk was given.
    """

    samples: npt.NDArray[np.float32]
    sample_rate_hz: int
    in_real_time: bool = True
    began: float | None = None
    given: list[float] = field(default_factory=list)

    @property
    def chunk_samples(self) -> int:
        """Samples a chunk."""
        return int(CHUNK_SECONDS * self.sample_rate_hz)

    async def chunks(self) -> AsyncIterator[audio_pb2.AudioChunk]:
        """The sound, from its first sample on."""
        self.began = time.monotonic()
        for first in range(0, len(self.samples), self.chunk_samples):
            piece = self.samples[first : first + self.chunk_samples]
            if self.in_real_time:
                spoken = self.began + (first + len(piece)) / self.sample_rate_hz
                await asyncio.sleep(max(0.0, spoken - time.monotonic()))
            self.given.append(time.monotonic())
            yield audio_pb2.AudioChunk(first_sample=first, pcm_f32=np.ascontiguousarray(piece, "<f4").tobytes())

    def latency_s(self, index: int) -> float:
        """Seconds from the moment that the last sound shown by frame `index` had been given until now."""
        last_sample = (index + 1) * self.sample_rate_hz // int(MOTION_RATE)
        chunk = min(max(0, -(-last_sample // self.chunk_samples) - 1), len(self.given) - 1)
        return time.monotonic() - self.given[chunk]
