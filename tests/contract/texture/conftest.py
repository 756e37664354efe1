"""A real server of the texture stage on a store in the test's folder."""

from pathlib import Path

import grpc.aio
import pytest_asyncio

from dubstage.texture.v1.texture_pb2_grpc import TextureServiceStub
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.texture.__main__ import compose
from services.texture.settings import TextureSettings


@pytest_asyncio.fixture
async def stub(tmp_path: Path):
    settings = load_settings(TextureSettings, port=0, artefacts_url=str(tmp_path))
    async with server_of("texture", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield TextureServiceStub(channel)
