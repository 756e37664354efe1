"""Frames of a live stream of a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client import gateway as gateway_client
from dubstage.client import rpcs
from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.consent.record import ConsentUse
from gateway.live.session import LiveFrame
from gateway.media.pixels import ColourTags
from services.common.server.client import ClientConfig, StageClient
from services.common.wire.messages import from_image


async def remote_live_frames(
    config: ClientConfig,
    actor_id: str,
    audio: AsyncIterator[audio_pb2.AudioChunk],
    *,
    sample_rate_hz: int,
    channels: int,
    use: ConsentUse = ConsentUse(),
    expressiveness: float = 1.0,
) -> AsyncGenerator[LiveFrame, None]:
    """Yield the dubbed frames of an actor of a gateway.

    The first chunk of `audio` is taken when the gateway is ready for sound. No chunk is taken if the gateway refuses the stream.

    Raises:
        DubstageError: from the gateway, or the gateway does not answer.
    """
    begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def requests() -> AsyncIterator[pb.LiveRequest]:
        made = gateway_client.live.requests(
            actor_id=actor_id,
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            project=use.project,
            language=use.language or "",
            expressiveness=expressiveness,
        )
        yield made.config
        call = await begun
        await call.initial_metadata()
        if call.done():
            # The gateway refused the stream. gRPC gives such a call initial metadata too.
            return
        async for chunk in audio:
            yield made.item(pb.LiveAudio(first_sample=chunk.first_sample, pcm_f32=chunk.pcm_f32))

    async with StageClient(config) as client:
        rpc = rpcs.gateway.LIVE
        call = client.channel.stream_stream(rpc.path, **rpc.serialisers)
        async with aclosing(client.stream(call, requests(), on_call=begun.set_result)) as replies:
            async for reply in replies:
                silent = reply.reason == common_pb2.FRAME_REASON_SILENT
                yield LiveFrame(reply.frame_index, from_image(reply.image, "image", channels=3), silent, _colour_of(reply))


def _colour_of(reply: pb.LiveResponse) -> ColourTags:
    """Return the colour tags of a frame. A gateway of an earlier version sends none: they are unspecified."""
    if not reply.HasField("colour"):
        return ColourTags()
    tags = reply.colour
    return ColourTags(tags.matrix, tags.range, tags.primaries, tags.transfer)
