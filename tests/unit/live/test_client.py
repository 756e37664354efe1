"""Live streams of a running gateway: what a refused stream takes of the sound."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.convert import live_response
from gateway.live.client import remote_live_frames
from gateway.live.session import LiveFrame
from gateway.media.pixels import ColourTags
from services.common.errors import OverloadedError
from services.common.server.client import ClientConfig
from tests.unit.client.conftest import server
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.full_gateway import FullGateway, is_held

__all__ = ["server"]


async def test_a_refused_stream_takes_no_sound(server: FakeServer) -> None:
    full = server.answers[rpcs.gateway.LIVE] = FullGateway()
    config = ClientConfig(stage="gateway", target=server.target)
    pieces = iter([audio_pb2.AudioChunk(pcm_f32=np.full(640, loudness, "<f4").tobytes()) for loudness in FullGateway.WHOLE])

    async def sound() -> AsyncIterator[audio_pb2.AudioChunk]:
        for piece in pieces:
            yield piece

    listener = sound()
    listening = weakref.ref(listener)
    with pytest.raises(OverloadedError):
        _ = [frame async for frame in remote_live_frames(config, "ann", listener, sample_rate_hz=16000, channels=1)]
    del listener
    while is_held(listening):  # noqa: ASYNC110 - gRPC lets go of the sound when it likes
        await asyncio.sleep(0.01)
    shown = [frame async for frame in remote_live_frames(config, "ann", sound(), sample_rate_hz=16000, channels=1)]
    assert (len(shown), full.heard) == (3, FullGateway.WHOLE)


@pytest.mark.parametrize("colour", [ColourTags(), ColourTags(9, 2, 9, 16)])
async def test_frames_carry_colour_tags(colour: ColourTags, server: FakeServer) -> None:
    """Frames come with the colour tags of the footage."""
    sent = LiveFrame(7, np.full((4, 6, 3), 90, np.uint8), True, colour)

    def answer(requests: Iterator[pb.LiveRequest], context: grpc.ServicerContext) -> Iterator[pb.LiveResponse]:
        context.send_initial_metadata(())
        yield from (live_response(sent) for request in requests if request.HasField("audio"))

    server.answers[rpcs.gateway.LIVE] = answer

    async def sound() -> AsyncIterator[audio_pb2.AudioChunk]:
        yield audio_pb2.AudioChunk(pcm_f32=np.zeros(640, "<f4").tobytes())

    config = ClientConfig(stage="gateway", target=server.target)
    (found,) = [frame async for frame in remote_live_frames(config, "ann", sound(), sample_rate_hz=16000, channels=1)]
    assert (found.index, found.silent, found.colour) == (7, True, colour)
    assert np.array_equal(found.picture, sent.picture)
