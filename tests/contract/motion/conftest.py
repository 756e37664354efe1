"""The motion stage behind a real server."""

from pathlib import Path

import grpc.aio
import pytest_asyncio

from dubstage.motion.v1.motion_pb2_grpc import MotionServiceStub
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.motion.__main__ import compose
from services.motion.settings import MotionSettings


@pytest_asyncio.fixture
async def stub(tmp_path: Path):
    settings = load_settings(MotionSettings, port=0, artefacts_url=str(tmp_path / "artefacts"))
    async with server_of("motion", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield MotionServiceStub(channel)
