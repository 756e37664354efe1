"""Stages inside the process: the servicer's handlers by name, and the bounds that their servers would hold requests to."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.stages.local import LocalStages, compose_stages
from services.common.errors import ArtefactCorruptError, InvalidRequestError
from services.common.server.limits import WorkerPool
from services.common.server.process import StageParts
from services.face import __main__ as face_stage

TRACK = face_pb2.TrackRequest(config=face_pb2.TrackConfig(max_faces=1))
TOO_MANY_STEPS = render_pb2.PersonalizeRequest(num_steps=(1 << 32) - 1)
LIBRARIES = """
import asyncio, sys
from gateway.stages.local import LocalStages
from services.common.server.process import StageParts
def warm_up():
    print("scipy.linalg" in sys.modules)
async def open_and_close():
    print("scipy.linalg" in sys.modules)
    async with LocalStages({"audio": StageParts(None, None, (), warm_up, ())}, warm_up=True):
        pass
asyncio.run(open_and_close())
"""
"""A program that prints whether a library is loaded before the stages are opened, and when they warm up."""
SERVICES = Path(__file__).parents[3] / "services"
LISTS = {
    "motion": (rpcs.motion.LIST_MODELS, motion_pb2.ListModelsRequest()),
    "render": (rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest()),
}


class Seen:
    """A servicer of any stage that keeps what comes."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def Track(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request)
            yield face_pb2.TrackResponse()

    async def FitIdentity(self, requests: AsyncIterator[Any], context: Any) -> face_pb2.FitIdentityResponse:
        self.requests += [request async for request in requests]
        return face_pb2.FitIdentityResponse(num_frames=len(self.requests))

    async def Personalize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        yield render_pb2.PersonalizeResponse(step=1)
        yield render_pb2.PersonalizeResponse(step=2)

    async def ListModels(self, request: Any, context: Any) -> render_pb2.ListModelsResponse:
        self.requests.append(request)
        return render_pb2.ListModelsResponse(models=[render_pb2.Model(name="toy")])


def stages(seen: Seen) -> LocalStages:
    parts = StageParts(servicer=seen, register=lambda server: None, services=(), warm_up=lambda: None, workers=())
    return LocalStages({"face": parts, "render": parts})


async def sent(*messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def test_a_unary_call() -> None:
    reply = await stages(Seen()).unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    assert [model.name for model in reply.models] == ["toy"]


async def test_an_upload() -> None:
    request = face_pb2.FitIdentityRequest(config=face_pb2.FitIdentityConfig())
    assert (await stages(Seen()).upload(rpcs.face.FIT_IDENTITY, sent(request, request))).num_frames == 2


async def test_a_download() -> None:
    replies = stages(Seen()).download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest(model="toy"))
    assert [reply.step async for reply in replies] == [1, 2]


async def test_a_stream_answers_while_requests_come() -> None:
    seen = Seen()
    replies = stages(seen).stream(rpcs.face.TRACK, sent(TRACK, TRACK))
    await anext(replies)
    assert seen.requests == [TRACK]
    await anext(replies)
    assert seen.requests == [TRACK, TRACK]


async def test_a_stream_is_checked_message_by_message() -> None:
    bad = face_pb2.TrackRequest(frame=face_pb2.FrameChunk(frame_index=-1, image=common_pb2.Image(width=1, height=1)))
    seen = Seen()
    with pytest.raises(InvalidRequestError) as caught:
        _ = [reply async for reply in stages(seen).stream(rpcs.face.TRACK, sent(TRACK, bad))]
    assert caught.value.field == "frame.frame_index"
    assert seen.requests == [TRACK]


async def test_an_upload_is_checked_message_by_message() -> None:
    bad = face_pb2.FitIdentityRequest(config=face_pb2.FitIdentityConfig(morphable_model="m" * 300))
    with pytest.raises(InvalidRequestError):
        await stages(Seen()).upload(rpcs.face.FIT_IDENTITY, sent(bad))


async def test_the_request_of_a_download_is_checked() -> None:
    seen = Seen()
    with pytest.raises(InvalidRequestError, match="num_steps: 4294967295 is not within 0"):
        _ = [reply async for reply in stages(seen).download(rpcs.render.PERSONALIZE, TOO_MANY_STEPS)]
    assert seen.requests == []


def test_parallel_warm_up_shares_import() -> None:
    """Stages that warm up side by side find the library that two others import."""
    answer = subprocess.run([sys.executable, "-c", LIBRARIES], check=True, capture_output=True, text=True).stdout
    assert answer.split() == ["False", "True"]


@contextmanager
def full(pool: WorkerPool) -> Iterator[None]:
    """Fill a pool with computations, which end with the block."""
    end = threading.Event()
    tasks = {asyncio.ensure_future(pool.run(end.wait)) for _ in range(pool._capacity)}
    try:
        yield
    finally:
        end.set()
    assert len(tasks) == pool._capacity


@pytest.mark.parametrize("stage", ["motion", "render"])
@pytest.mark.parametrize("opened", [False, True])
async def test_busy_stage_lists_models(tmp_path: Path, stage: str, opened: bool) -> None:
    """A stage whose pools are full lists its models, whether it has read its files before or not."""
    parts = compose_stages(str(tmp_path / "artefacts"), names=(stage,))
    local = LocalStages(parts)
    rpc, request = LISTS[stage]
    with full(parts[stage].workers[0]), full(parts[stage].workers[1]):
        await asyncio.sleep(0)
        assert all(pool.pending == pool._capacity for pool in parts[stage].workers)
        if opened:
            await local.__aenter__()
        assert (await local.unary(rpc, request)).models
    await local.__aexit__(None, None, None)


async def test_full_workers_spare_personalizations(tmp_path: Path) -> None:
    """A personalisation does not need the threads that draw frames, not even to load its network."""
    parts = compose_stages(str(tmp_path / "artefacts"), names=("render",))
    async with LocalStages(parts) as local:
        with full(parts["render"].workers[0]):
            await asyncio.sleep(0)
            with pytest.raises(InvalidRequestError, match="bank"):
                _ = [reply async for reply in local.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest(model="ugc"))]


@pytest.mark.parametrize(
    ("stage", "network"),
    [
        ("audio", "speech_encoder.onnx"),
        ("face", "face_embedding.onnx.gz"),
        ("motion", "hetero_person.onnx"),
        ("render", "ugc.int8.onnx"),
        ("texture", "temporal_warp.onnx"),
    ],
)
async def test_damaged_weights_end_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, network: str) -> None:
    """A damaged network is found when the stages are opened, not by the call that needs the network."""
    weights = tmp_path / "weights"
    shutil.copytree(SERVICES / stage / "weights", weights)
    (weights / network).write_bytes((weights / network).read_bytes()[:-1])
    monkeypatch.setenv(f"DUBSTAGE_{stage.upper()}_WEIGHTS", str(weights))
    monkeypatch.setenv("DUBSTAGE_BACKEND", "onnxruntime")
    monkeypatch.setenv("DUBSTAGE_PRECISION", "int8")
    monkeypatch.setattr(face_stage, "WEIGHTS", weights / network)
    with pytest.raises(ArtefactCorruptError, match=rf"{network} is damaged"):
        async with LocalStages(compose_stages(str(tmp_path / "artefacts"), names=(stage,))):
            pass
