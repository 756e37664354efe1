"""The audio stage behind a real server."""

import grpc.aio
import pytest_asyncio

from dubstage.audio.v1.audio_pb2_grpc import AudioServiceStub
from services.audio.__main__ import compose
from services.audio.settings import AudioSettings
from services.common.server.process import server_of


@pytest_asyncio.fixture
async def stub():
    settings = AudioSettings(port=0)
    async with server_of("audio", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield AudioServiceStub(channel)
