"""The same job gives the same bytes wherever its stages run and however its streams are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.speech import FEATURE_BLOCK
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost
from gateway.stages.interface import Stages
from gateway.stages.local import compose_stages
from gateway.stages.remote import STAGE_NAMES, RemoteStages
from services.common.artefacts import ArtefactStore
from services.common.client import ClientConfig
from services.common.settings import StageSettings
from services.common.stage import server_of
from tests.system.dubbing import SPEECH, UNPERSONALIZED, sha256


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
@pytest.mark.parametrize(
    ("method", "enrol"), [("ugc", UNPERSONALIZED), ("everybody", EnrolOptions(renderer_steps=4)), ("everybody+ugc", UNPERSONALIZED)]
)
def test_in_process_over_grpc_and_with_other_chunks(
    method: str, enrol: EnrolOptions, carphone: Path, host: StageHost, settings: GatewaySettings, tmp_path: Path
) -> None:
    store = ArtefactStore(settings.artefacts_url)

    async def dub(stages: Stages, name: str, feature_block: int = FEATURE_BLOCK) -> str:
        output = tmp_path / f"{name}.mp4"
        request = DubRequest(
            footage=carphone, speech=SPEECH, output=output, method=method, enrol=enrol, feature_block=feature_block
        )
        job = DubJob(request, stages, store, tmp_path / "jobs")
        outcome = await job.run(lambda *_: None)
        assert outcome.plan.rendered().all()
        job.discard()
        return sha256(output)

    async def over_grpc() -> str:
        async with five_servers(settings.artefacts_url) as stages:
            return await dub(stages, "grpc")

    expected = host.run(dub(host.stages, "local"))
    assert host.run(dub(host.stages, "chunks", feature_block=7)) == expected
    assert asyncio.run(over_grpc()) == expected
