"""Footage of several shots: no stage takes the frames on both sides of a cut for one run."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.client import rpcs
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.stages.interface import Stages
from research.stage_host import StageHost
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import SPEECH, UNPERSONALIZED, WrappedStages
from tests.written_pictures import write_pictures

CUT = 40
"""First frame of the second shot. It is no multiple of the frames of a window."""
FRAMES = 72
RUNS = (rpcs.texture.BUILD_BANK, rpcs.texture.SELECT_INSIDES, rpcs.texture.RETRIEVE_WARP, rpcs.render.RENDER)
"""RPCs that take frames with consecutive numbers for a run."""


class RecordedStages(WrappedStages):
    """Real stages, with the numbers of the frames that each call of an RPC got."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages)
        self.frames: dict[Any, list[list[int]]] = defaultdict(list)

    async def unary(self, rpc: Any, request: Any) -> Any:
        return await self._stages.unary(rpc, request)

    async def upload(self, rpc: Any, requests: AsyncIterator[Any]) -> Any:
        return await self._stages.upload(rpc, self._recorded(rpc, requests))

    def download(self, rpc: Any, request: Any) -> Any:
        return self._stages.download(rpc, request)

    def stream(self, rpc: Any, requests: AsyncIterator[Any]) -> Any:
        return self._stages.stream(rpc, self._recorded(rpc, requests))

    async def _recorded(self, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        numbers: list[int] = []
        self.frames[rpc].append(numbers)
        async for request in requests:
            if rpc in RUNS and request.HasField("frame"):
                numbers.append(request.frame.frame_index)
            yield request


@dataclass(frozen=True)
class Dub:
    """What the stages got of a dub of two shots."""

    frames: dict[Any, list[list[int]]]
    rendered: list[int]


@pytest.fixture(scope="module")
def dub(carphone: Path, host: StageHost, settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Dub:
    """Dub a man who is filmed from farther and then, in another light, from nearer."""
    folder = tmp_path_factory.mktemp("shots")
    with VideoReader(probe(carphone)) as reader:
        pictures = [to_rgb(frame) for frame in reader.frames(0, FRAMES)]
    height, width, _ = pictures[0].shape
    nearer = [cv2.resize(picture[: height * 5 // 6, : width * 5 // 6], (width, height)) for picture in pictures[CUT:]]
    darker = [np.asarray(np.rint(255.0 * (picture / 255.0) ** 1.8), np.uint8) for picture in nearer]
    footage = write_pictures(folder / "footage.mkv", pictures[:CUT] + darker)
    request = DubRequest(footage=footage, speech=SPEECH, output=folder / "dub.mp4", method="dubstage", enrol=UNPERSONALIZED)
    stages = RecordedStages(host.stages)
    job = DubJob(request, stages, ArtefactStore(settings.artefacts_url), folder / "jobs")
    outcome = host.run(job.run(lambda *_: None))
    return Dub(stages.frames, np.flatnonzero(outcome.plan.rendered()).tolist())


def test_windows_end_at_cuts(dub: Dub) -> None:
    """The frames that a window shows to a stage are frames of one shot."""
    assert {CUT - 1, CUT} <= set(dub.rendered)
    for rpc in (rpcs.texture.RETRIEVE_WARP, rpcs.render.RENDER):
        assert all(max(call) < CUT or min(call) >= CUT for call in dub.frames[rpc])
        assert {number for call in dub.frames[rpc] for number in call} == set(dub.rendered)


def test_path_of_insides_ends_at_cuts(dub: Dub) -> None:
    """The path through the bank sees a gap at the cut."""
    (numbers,) = dub.frames[rpcs.texture.SELECT_INSIDES]
    assert numbers == [frame + (frame >= CUT) for frame in dub.rendered]


def test_bank_has_gap_at_cuts(dub: Dub) -> None:
    """Frames of two shots are no neighbours in the bank."""
    (numbers,) = dub.frames[rpcs.texture.BUILD_BANK]
    assert numbers == [frame + (frame >= CUT) for frame in dub.rendered]
