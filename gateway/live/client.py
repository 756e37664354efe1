"""Client of a running gateway's live streams: speech that is sent at the pace of speaking, and the latency of each frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import gateway as gateway_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.consent.record import ConsentUse
from gateway.live.session import LiveFrame, LiveMouth
from gateway.media.label import Label
from gateway.media.pixels import ColourTags
from gateway.provenance.seal import SignedDisclosure
from services.common.array_types import Float32
from services.common.server.client import ClientConfig, StageClient
from services.common.wire.convert import from_image
from services.common.wire.timeline import MOTION_RATE

CHUNK_SECONDS: Final = 0.02


@dataclass(slots=True)
class PacedSpeech:
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


async def remote_live_frames(
    config: ClientConfig,
    actor_id: str,
    audio: AsyncIterator[audio_pb2.AudioChunk],
    *,
    sample_rate_hz: int,
    channels: int,
    use: ConsentUse = ConsentUse(),
    mouth: LiveMouth = LiveMouth(),
    label: Label | None = None,
    disclose: bool = False,
) -> AsyncGenerator[LiveFrame, None]:
    """Yield the dubbed frames of an actor of a gateway.

    The first chunk of `audio` is taken when the gateway is ready for sound. No chunk is taken if the gateway refuses the stream.

    Raises:
        DubstageError: from the gateway, or the gateway does not answer.
    """

    async def requests() -> AsyncIterator[pb.LiveRequest]:
        call = gateway_client.live.requests(
            actor_id=actor_id,
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            project=use.project,
            language=use.language or "",
            label=label.text if label is not None else "",
            label_position=label.position if label is not None else "",
            disclose=disclose,
            **asdict(mouth),
        )
        yield call.config
        async for chunk in audio:
            yield call.item(pb.LiveAudio(first_sample=chunk.first_sample, pcm_f32=chunk.pcm_f32))

    async with (
        StageClient(config) as client,
        aclosing(client.connection.stream(rpcs.gateway.LIVE, requests(), once_ready=True)) as replies,
    ):
        async for reply in replies:
            silent = reply.reason == common_pb2.FRAME_REASON_SILENT
            picture = from_image(reply.image, "image", channels=3)
            signed = reply.disclosure if reply.HasField("disclosure") else None
            disclosure = SignedDisclosure(signed.xmp, signed.manifest) if signed is not None else None
            yield LiveFrame(reply.frame_index, picture, silent, _colour_of(reply), disclosure)


def _colour_of(reply: pb.LiveResponse) -> ColourTags:
    """Return the colour tags of a frame."""
    tags = reply.colour
    return ColourTags(tags.matrix, tags.range, tags.primaries, tags.transfer)
