"""Stages behind gRPC: the four kinds of calls, what is tried again, and errors of the tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from dubstage.client import rpcs
from dubstage.face.v1 import face_pb2
from dubstage.render.v1 import render_pb2
from gateway.stages.interface import STAGE_NAMES
from gateway.stages.remote import RemoteStages
from services.common.errors import BackendUnavailableError
from services.common.server.client import ClientConfig
from tests.unit.client.conftest import server
from tests.unit.client.fake_server import FakeServer, refuse
from tests.unit.stages.test_local import TRACK, sent

__all__ = ["server"]

GONE = refuse(grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")


@pytest.fixture
async def stages(server: FakeServer) -> AsyncIterator[RemoteStages]:
    async with RemoteStages({name: ClientConfig(stage=name, target=server.target) for name in STAGE_NAMES}) as remote:
        await remote.wait_until_serving(60.0)
        yield remote


async def test_the_four_kinds_of_calls(server: FakeServer, stages: RemoteStages) -> None:
    steps = [render_pb2.PersonalizeResponse(step=1), render_pb2.PersonalizeResponse(step=2)]
    server.answers[rpcs.render.PERSONALIZE] = steps
    server.answers[rpcs.face.TRACK] = [face_pb2.TrackResponse(), face_pb2.TrackResponse()]
    server.answers[rpcs.face.FIT_IDENTITY] = [face_pb2.FitIdentityResponse(num_frames=3)]
    server.answers[rpcs.render.LIST_MODELS] = [render_pb2.ListModelsResponse(models=[render_pb2.Model(name="toy")])]
    request, fit = render_pb2.PersonalizeRequest(model="toy"), face_pb2.FitIdentityRequest(config=face_pb2.FitIdentityConfig())
    assert (await stages.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())).models[0].name == "toy"
    assert (await stages.upload(rpcs.face.FIT_IDENTITY, sent(fit, fit))).num_frames == 3
    assert [reply async for reply in stages.download(rpcs.render.PERSONALIZE, request)] == steps
    assert len([reply async for reply in stages.stream(rpcs.face.TRACK, sent(TRACK))]) == 2
    assert server.received == [render_pb2.ListModelsRequest(), fit, fit, request, TRACK]


async def test_a_unary_call_is_tried_again(server: FakeServer, stages: RemoteStages) -> None:
    attempts = 0

    def at_the_second(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        nonlocal attempts
        attempts += 1
        yield from GONE(request, context) if attempts == 1 else [render_pb2.ListModelsResponse()]

    server.answers[rpcs.render.LIST_MODELS] = at_the_second
    await stages.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
    assert attempts == 2


async def test_what_streams_is_not_tried_again(server: FakeServer, stages: RemoteStages) -> None:
    attempts = 0

    def never(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        nonlocal attempts
        attempts += 1
        yield from GONE(request, context)

    for rpc in (rpcs.face.FIT_IDENTITY, rpcs.render.PERSONALIZE, rpcs.face.TRACK):
        server.answers[rpc] = never
    with pytest.raises(BackendUnavailableError):
        await stages.upload(rpcs.face.FIT_IDENTITY, sent())
    with pytest.raises(BackendUnavailableError):
        _ = [reply async for reply in stages.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest())]
    with pytest.raises(BackendUnavailableError):
        _ = [reply async for reply in stages.stream(rpcs.face.TRACK, sent())]
    assert attempts == 3
