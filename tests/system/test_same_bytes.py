"""The same job gives the same bytes wherever its stages run and however its streams are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.pipeline.dub import DubJob, DubRequest
from gateway.settings import GatewaySettings
from gateway.stages.local import compose_stages
from gateway.stages.remote import STAGE_NAMES, RemoteStages
from services.common.artefacts import ArtefactStore
from services.common.client import ClientConfig
from services.common.settings import StageSettings
from services.common.stage import server_of
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, sha256


@asynccontextmanager
async def five_servers(artefacts_url: str) -> AsyncIterator[RemoteStages]:
    """The five stages behind real servers on free ports, and channels to them."""
    async with AsyncExitStack() as stack:
        configs = {}
        settings = StageSettings(port=0, artefacts_url=artefacts_url)
        for name, parts in compose_stages(artefacts_url).items():
            server = await stack.enter_async_context(server_of(name, settings, parts))
            configs[name] = ClientConfig(stage=name, target=server.address)
        assert set(configs) == set(STAGE_NAMES)
        yield await stack.enter_async_context(RemoteStages(configs))


@pytest.mark.timeout(300)
def test_in_process_over_grpc_and_with_other_chunks(
    carphone: Path, dubber: Dubber, settings: GatewaySettings, tmp_path: Path
) -> None:
    request = DubRequest(footage=carphone, speech=SPEECH, output=tmp_path / "local.mp4", enrol=UNPERSONALIZED)
    dubber(request)
    dubber(replace(request, output=tmp_path / "chunks.mp4", feature_block=7))

    async def over_grpc() -> None:
        store = ArtefactStore(settings.artefacts_url)
        async with five_servers(settings.artefacts_url) as stages:
            job = DubJob(replace(request, output=tmp_path / "grpc.mp4"), stages, store, tmp_path / "jobs")
            await job.run(lambda *_: None)
            job.discard()

    asyncio.run(over_grpc())
    expected = sha256(tmp_path / "local.mp4")
    assert sha256(tmp_path / "chunks.mp4") == expected
    assert sha256(tmp_path / "grpc.mp4") == expected
