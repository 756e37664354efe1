"""A live stream of a running gateway, as frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from dubstage.gateway.v1alpha1 import gateway_pb2_grpc
from gateway.live.session import LiveFrame
from services.common.arrays import from_image
from services.common.client import ClientConfig, StageClient


async def remote_live_frames(
    config: ClientConfig, actor_id: str, audio: AsyncIterator[audio_pb2.AudioChunk], *, sample_rate_hz: int, channels: int
) -> AsyncGenerator[LiveFrame, None]:
    """Dubbed frames of an actor of a gateway; `audio` is first asked for sound when the gateway is ready for it.

    Raises:
        DubstageError: from the gateway, or it does not answer.
    """
    begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def requests() -> AsyncIterator[pb.LiveRequest]:
        yield pb.LiveRequest(config=pb.LiveConfig(actor_id=actor_id, sample_rate_hz=sample_rate_hz, channels=channels))
        await (await begun).initial_metadata()
        async for chunk in audio:
            yield pb.LiveRequest(audio=pb.LiveAudio(first_sample=chunk.first_sample, pcm_f32=chunk.pcm_f32))

    async with StageClient(config) as client:
        stub = gateway_pb2_grpc.DubServiceStub(client.channel)
        async with aclosing(client.stream(stub.Live, requests(), on_call=begun.set_result)) as replies:
            async for reply in replies:
                silent = reply.reason == common_pb2.FRAME_REASON_SILENT
                yield LiveFrame(reply.frame_index, from_image(reply.image, "image", channels=3), silent)
