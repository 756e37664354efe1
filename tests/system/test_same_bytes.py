"""The same job gives the same bytes wherever its stages run and however its streams are cut."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import pytest
from skimage.data import astronaut

from dubstage.client.rpcs import Rpc
from gateway.dub.choices import EnrolOptions, Fit
from gateway.dub.job.dub_job import DubJob
from gateway.dub.render.windows import WINDOW_FRAMES
from gateway.dub.request.dub_request import DubRequest
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.local import compose_stages
from gateway.stages.remote import RemoteStages
from research.stage_host import StageHost
from services.common.server.client import ClientConfig
from services.common.server.process import server_of
from services.common.server.settings import StageSettings
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import UNPERSONALIZED, WrappedStages, cut, sha256, write_wav
from tests.system.test_speech_lengths import demo_speech

FOOTAGE_S, SPEECH_S = 1.2, 1.4
"""Seconds of footage and of speech: a window and a part of one."""
LONG_S = 2.8
"""Seconds with more rows of features than one block of a stream has (FEATURE_BLOCK), and with two windows and a part of one."""
ALWAYS = ("dubstage",)
"""Case that `make test` runs. tests/integration/test_toy_method.py compares a method with all inputs, and each renderer has a test
of chunks."""


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


@pytest.fixture(scope="module")
def remote(host: StageHost, settings: GatewaySettings) -> Iterator[RemoteStages]:
    """Channels to five servers, which all cases share."""
    stack = AsyncExitStack()
    yield host.run(stack.enter_async_context(five_servers(settings.artefacts_url)))
    host.run(stack.aclose())


class Told(WrappedStages):
    """Stages, and a digest of all that they answered, by RPC: says where two runs part."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages)
        self._digests: dict[str, Any] = {}

    @property
    def answers(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stages, name)

        def begin(rpc: Rpc[Any, Any], requests: Any) -> Any:
            digest = self._digests.setdefault(rpc.path, hashlib.sha256())

            def told(message: Any) -> Any:
                digest.update(message.SerializeToString(deterministic=True))
                return message

            async def stream(replies: AsyncIterator[Any]) -> AsyncIterator[Any]:
                async for reply in replies:
                    yield told(reply)

            async def single(reply: Awaitable[Any]) -> Any:
                return told(await reply)

            replies = call(rpc, requests)
            return stream(replies) if hasattr(replies, "__aiter__") else single(replies)

        return begin


@dataclass(frozen=True)
class Case:
    """Case of a dub: a method, how the person is learned, and of how many seconds of footage and speech."""

    method: str
    enrol: EnrolOptions = UNPERSONALIZED
    footage_s: float = FOOTAGE_S
    speech_s: float = SPEECH_S
    still: bool = False
    fit: Fit = "cut"


CASES = {
    "dubstage": Case("dubstage", footage_s=LONG_S - 0.1, speech_s=LONG_S),
    "dubstage retimed": Case("dubstage", fit="retime"),
    "portrait": Case("portrait", EnrolOptions(renderer_steps=2)),
    "portrait of a still": Case("portrait", still=True),
    "ugc": Case("ugc"),
    "everybody": Case("everybody", EnrolOptions(renderer_steps=2)),
    "headpose": Case("headpose", EnrolOptions(renderer_steps=2)),
    "hetero": Case("hetero", EnrolOptions(renderer_steps=2)),
    "everyone": Case("everyone", EnrolOptions(renderer_steps=2)),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=[] if name in ALWAYS else pytest.mark.long) for name, case in CASES.items()]
)
def test_in_process_over_grpc_and_with_other_chunks(case, carphone, host, remote, settings, tmp_path, monkeypatch) -> None:
    store = ArtefactStore(settings.artefacts_url)
    if case.still:
        footage = tmp_path / "astronaut.png"
        assert cv2.imwrite(str(footage), astronaut()[..., ::-1])
    else:
        footage = cut(carphone, tmp_path / "footage.mkv", 0.0, case.footage_s)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, case.speech_s), 16000)

    def dub(stages: Stages, name: str) -> str:
        output = tmp_path / f"{name}.mp4"
        request = DubRequest(footage=footage, speech=speech, output=output, method=case.method, enrol=case.enrol, fit=case.fit)
        job = DubJob(request, stages, store, tmp_path / "jobs")
        assert host.run(job.run(lambda *_: None)).plan.rendered().sum() > WINDOW_FRAMES
        job.discard()
        return sha256(output)

    local, over_grpc = Told(host.stages), Told(remote)
    expected = dub(local, "local")
    # Remote stages and other blocks at once. If the videos differ, look for the cause with one of them at a time.
    monkeypatch.setattr("gateway.dub.sound.speech.FEATURE_BLOCK", 7)
    found = dub(over_grpc, "grpc")
    assert found == expected, [name for name, digest in over_grpc.answers.items() if digest != local.answers[name]]
