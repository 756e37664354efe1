"""A live stream in this process: how long after its sound the first frame comes, and what a frame costs in the long run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.actors.store import ActorStore
from gateway.live.client import PacedSpeech
from gateway.live.streams import LiveStreams
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from research.bench.runs import Stopwatch
from services.common.store.artefacts import ArtefactStore

SPOKEN_SECONDS: Final = 4.0
"""Seconds of speech that is sent at the rate at which it is spoken."""


@dataclass(frozen=True, slots=True)
class LiveTimes:
    """A live stream, milliseconds.

    Attributes:
        first_frame_ms: from the last sound that the first frame shows to the frame.
        median_ms, late_ms: the same over all frames: median, and what 95 % stay within.
        sustained_ms: wall time per frame if speech comes as fast as the stream takes speech; 40 is real time.
        sustained_cpu_ms: processor time per frame of the same stream.
        frames: number of frames of the same stream.
    """

    first_frame_ms: float
    median_ms: float
    late_ms: float
    sustained_ms: float
    sustained_cpu_ms: float
    frames: int


async def measure_live(
    stages: Stages, actors: ActorStore, actor_id: str, samples: npt.NDArray[np.float32], rate: int, settings: GatewaySettings
) -> LiveTimes:
    """Stream an actor twice: at the pace of speaking, then as fast as possible.

    Args:
        stages: warm, in this process.
        actors: store of the actor.
        actor_id: the enrolled actor.
        samples: speech, float32 [n, channels].
        rate: sample rate of the speech, Hz.
    """
    streams = LiveStreams(
        lambda: stages,
        actors,
        ArtefactStore(settings.artefacts_url),
        max_message_bytes=settings.max_message_bytes,
    )

    async def stream(speech: PacedSpeech) -> list[float]:
        channels = speech.samples.shape[1]
        frames = streams.frames(actor_id, speech.chunks(), sample_rate_hz=rate, channels=channels)
        return [1000.0 * speech.latency_s(frame.index) async for frame in frames]

    spoken = await stream(PacedSpeech(samples[: int(SPOKEN_SECONDS * rate)], rate))
    with Stopwatch() as watch:
        count = len(await stream(PacedSpeech(samples, rate, in_real_time=False)))
    return LiveTimes(
        first_frame_ms=spoken[0],
        median_ms=float(np.median(spoken)),
        late_ms=float(np.percentile(spoken, 95)),
        sustained_ms=1000.0 * watch.wall_s / count,
        sustained_cpu_ms=1000.0 * watch.cpu_s / count,
        frames=count,
    )
