"""The four kinds of calls and lists in pages, blocking and for asyncio, against a real server."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from dubstage.client import (
    Connection,
    DubstageCallError,
    connect,
    connect_aio,
    face,
    gateway,
    motion,
    render,
    rpcs,
    texture,
    to_image,
    to_tensor,
)
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.gateway.v1 import gateway_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from tests.unit.client.fake_server import FakeServer, refuse
from tests.unit.client.full_gateway import FullGateway, is_held

STYLE = common_pb2.ArtefactRef(uri="file:///style", sha256="ab" * 32, size_bytes=9)
PICTURE = np.zeros((4, 6, 3), np.uint8)
MOUTHS = np.zeros((5, 59, 3), np.float32)
USABLE = np.ones(5, np.bool_)
STEPS = [
    render_pb2.PersonalizeResponse(step=1, num_steps=2, loss=0.5),
    render_pb2.PersonalizeResponse(step=2, num_steps=2, actor=STYLE),
]


def frames(count: int) -> Iterator[render.Conditions]:
    for index in range(count):
        yield render.Conditions(frame_index=index, background=PICTURE, mask=PICTURE[..., 0])


def rendered(requests: Any, context: grpc.ServicerContext) -> Iterator[render_pb2.RenderResponse]:
    for request in requests:
        if request.HasField("frame"):
            yield render_pb2.RenderResponse(frame_index=request.frame.frame_index, box=request.frame.background)


def test_a_unary_call(server: FakeServer, connection: Connection) -> None:
    server.answers[rpcs.motion.ENCODE_STYLE] = [motion_pb2.EncodeStyleResponse(style=STYLE)]
    assert motion.encode_style(connection, method="toy", mouth_landmarks=MOUTHS, usable=USABLE) == STYLE
    assert server.received == [motion.encode_style.request(method="toy", mouth_landmarks=MOUTHS, usable=USABLE)]


def test_an_upload(server: FakeServer, connection: Connection) -> None:
    shape = texture_pb2.ActorGeometry(
        mean_mouth=to_tensor(MOUTHS[0]),
        closed_mouth=to_tensor(MOUTHS[0]),
        jaw_envelope=to_tensor(MOUTHS[0]),
        anchors=to_tensor(MOUTHS[0]),
    )
    server.answers[rpcs.texture.BUILD_BANK] = [texture_pb2.BuildBankResponse(bank=STYLE, num_frames=2, geometry=shape)]
    items = [texture.BankFrame(index, PICTURE, MOUTHS[0], common_pb2.HeadPose(scale=1)) for index in range(2)]
    bank = texture.build_bank(connection, items, max_frames=7)
    assert (bank.artefact, bank.num_frames, bank.mean_mouth.shape) == (STYLE, 2, (59, 3))
    assert server.received == list(texture.build_bank.requests(max_frames=7).of(items))
    assert [request.WhichOneof("payload") for request in server.received] == ["config", "frame", "frame"]


def test_a_download(server: FakeServer, connection: Connection) -> None:
    server.answers[rpcs.render.PERSONALIZE] = STEPS
    steps = list(render.personalize(connection, model="toy", bank=STYLE, seed=3))
    assert [(step.step, step.num_steps, step.artefact) for step in steps] == [(1, 2, None), (2, 2, STYLE)]
    assert server.received == [render.personalize.request(model="toy", bank=STYLE, seed=3)]


def test_a_stream(server: FakeServer, connection: Connection) -> None:
    server.answers[rpcs.render.RENDER] = rendered
    boxes = list(render.render(connection, frames(3), model="toy"))
    assert [box.frame_index for box in boxes] == [0, 1, 2]
    assert boxes[0].box.shape == (4, 6, 3)


async def test_the_same_calls_for_asyncio(server: FakeServer) -> None:
    server.answers[rpcs.motion.ENCODE_STYLE] = [motion_pb2.EncodeStyleResponse(style=STYLE)]
    server.answers[rpcs.render.PERSONALIZE] = STEPS
    server.answers[rpcs.render.RENDER] = rendered

    async def slowly() -> AsyncIterator[render.Conditions]:
        for frame in frames(3):
            await asyncio.sleep(0)
            yield frame

    async with connect_aio(server.target, timeout_s=60) as connection:
        assert await motion.encode_style.aio(connection, method="toy", mouth_landmarks=MOUTHS, usable=USABLE) == STYLE
        steps = [step async for step in render.personalize.aio(connection, model="toy", bank=STYLE)]
        assert steps[-1].artefact == STYLE
        for items in (frames(3), slowly()):
            boxes = [box async for box in render.render.aio(connection, items, model="toy")]
            assert [box.frame_index for box in boxes] == [0, 1, 2]


async def test_an_upload_for_asyncio(server: FakeServer) -> None:
    async with connect_aio(server.target, timeout_s=60) as connection:
        request = rpcs.face.FIT_IDENTITY.request()

        async def twice() -> AsyncIterator[Any]:
            yield request
            yield request

        await connection.upload(rpcs.face.FIT_IDENTITY, twice())
    assert server.received == [request, request]


def test_a_list_comes_page_by_page(server: FakeServer, connection: Connection) -> None:
    names = ["ann", "bob", "cem", "dana", "eli"]
    asked: list[str] = []

    def page(request: gateway_pb2.ListActorsRequest, context: Any) -> Iterator[gateway_pb2.ListActorsResponse]:
        asked.append(request.page_token)
        first = names.index(request.page_token) if request.page_token else 0
        more = names[first + 2] if first + 2 < len(names) else ""
        actors = [gateway_pb2.Actor(name=name) for name in names[first : first + 2]]
        yield gateway_pb2.ListActorsResponse(actors=actors, next_page_token=more)

    server.answers[rpcs.gateway.LIST_ACTORS] = page
    assert [actor.name for actor in gateway.list_actors(connection)] == names
    assert asked == ["", "cem", "eli"]

    async def all_actors() -> list[str]:
        async with connect_aio(server.target) as other:
            return [actor.name async for actor in gateway.list_actors.aio(other)]

    assert asyncio.run(all_actors()) == names


@pytest.mark.parametrize("asynchronous", [False, True])
def test_error_carries_all_details(server: FakeServer, asynchronous: bool) -> None:
    """An error says code reason field stage and when to come back."""
    server.answers[rpcs.render.LIST_MODELS] = refuse(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", field="model", retry_after_s=2.5
    )

    async def ask() -> None:
        async with connect_aio(server.target) as connection:
            await render.list_models.aio(connection)

    def call() -> None:
        if asynchronous:
            asyncio.run(ask())
        else:
            with connect(server.target) as connection:
                render.list_models(connection)

    with pytest.raises(DubstageCallError, match="OVERLOADED in words") as caught:
        call()
    error = caught.value
    assert (error.code, error.reason, error.field, error.stage) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "model", "toy")
    assert (error.retryable, error.retry_after_s, error.unsent) == (True, 2.5, False)


def test_all_kinds_of_calls_translate_errors(server: FakeServer, connection: Connection) -> None:
    refused = refuse(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    for rpc in (rpcs.render.LIST_MODELS, rpcs.texture.BUILD_BANK, rpcs.render.PERSONALIZE, rpcs.render.RENDER):
        server.answers[rpc] = refused

    async def sent() -> AsyncIterator[Any]:
        return
        yield

    async def ask(number: int) -> None:
        async with connect_aio(server.target) as other:
            if number == 0:
                await other.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest())
            elif number == 1:
                await other.upload(rpcs.texture.BUILD_BANK, sent())
            elif number == 2:
                _ = [reply async for reply in other.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest())]
            else:
                _ = [reply async for reply in other.stream(rpcs.render.RENDER, sent())]

    calls = (
        lambda: connection.unary(rpcs.render.LIST_MODELS, render_pb2.ListModelsRequest()),
        lambda: connection.upload(rpcs.texture.BUILD_BANK, []),
        lambda: list(connection.download(rpcs.render.PERSONALIZE, render_pb2.PersonalizeRequest())),
        lambda: list(connection.stream(rpcs.render.RENDER, [])),
        *(lambda number=number: asyncio.run(ask(number)) for number in range(4)),  # type: ignore[misc]
    )
    for call in calls:
        with pytest.raises(DubstageCallError) as caught:
            call()
        assert caught.value.reason == "INVALID_REQUEST"


class MyOwnError(Exception):
    pass


def broken() -> Iterator[render.Conditions]:
    yield from frames(2)
    raise MyOwnError


def test_iterator_error_passes_through(server: FakeServer, connection: Connection) -> None:
    """An exception of the caller's iterator passes through unchanged."""
    server.answers[rpcs.render.RENDER] = rendered
    with pytest.raises(MyOwnError):
        list(render.render(connection, broken(), model="toy"))
    with pytest.raises(MyOwnError):
        connection.upload(rpcs.texture.BUILD_BANK, (texture_pb2.BuildBankRequest() for _ in broken()))

    async def ask() -> None:
        async with connect_aio(server.target) as other:
            _ = [box async for box in render.render.aio(other, broken(), model="toy")]

    with pytest.raises(MyOwnError):
        asyncio.run(ask())


def test_a_stream_that_is_closed_early_is_cancelled(server: FakeServer, connection: Connection) -> None:
    ended: list[bool] = []

    def endless(requests: Any, context: grpc.ServicerContext) -> Iterator[render_pb2.RenderResponse]:
        context.add_callback(lambda: ended.append(True))
        while context.is_active():
            yield render_pb2.RenderResponse(box=to_image(PICTURE))

    server.answers[rpcs.render.RENDER] = endless
    boxes = render.render(connection, frames(1), model="toy")
    next(boxes)
    boxes.close()
    server.stop()
    assert ended == [True]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_live_waits_for_gateway(server: FakeServer, asynchronous: bool) -> None:
    """Live takes sound only when the gateway is ready."""
    events: list[str] = []

    def answer(requests: Any, context: grpc.ServicerContext) -> Iterator[gateway_pb2.LiveResponse]:
        next(requests)
        events.append("ready")
        context.send_initial_metadata(())
        for index, _ in enumerate(requests):
            yield gateway_pb2.LiveResponse(frame_index=index, image=to_image(PICTURE), reason=common_pb2.FRAME_REASON_SILENT)

    def sound() -> Iterator[Any]:
        events.append("sound")
        yield np.zeros(640, np.float32)

    server.answers[rpcs.gateway.LIVE] = answer

    async def ask() -> list[gateway.LiveFrame]:
        async with connect_aio(server.target) as other:
            return [frame async for frame in gateway.live.aio(other, sound(), actor_id="ann", sample_rate_hz=16000)]

    if asynchronous:
        shown = asyncio.run(ask())
    else:
        with connect(server.target) as connection:
            shown = list(gateway.live(connection, sound(), actor_id="ann", sample_rate_hz=16000))
    assert events == ["ready", "sound"]
    assert [(frame.frame_index, frame.silent) for frame in shown] == [(0, True)]


def microphone() -> Iterator[Any]:
    yield from (np.full(640, loudness, np.float32) for loudness in FullGateway.WHOLE)


def test_a_refused_live_stream_takes_no_sound(server: FakeServer, connection: Connection) -> None:
    full = server.answers[rpcs.gateway.LIVE] = FullGateway()
    sound = microphone()
    listener = (piece for piece in sound)
    listening = weakref.ref(listener)
    with pytest.raises(DubstageCallError, match="OVERLOADED"):
        list(gateway.live(connection, listener, actor_id="ann", sample_rate_hz=16000))
    del listener
    while is_held(listening):
        time.sleep(0.01)
    shown = list(gateway.live(connection, sound, actor_id="ann", sample_rate_hz=16000))
    assert (len(shown), full.heard) == (3, FullGateway.WHOLE)


async def test_refused_async_stream_takes_nothing(server: FakeServer) -> None:
    """A refused live stream of asyncio takes no sound."""
    full = server.answers[rpcs.gateway.LIVE] = FullGateway()
    sound = microphone()
    listener = (piece for piece in sound)
    listening = weakref.ref(listener)
    async with connect_aio(server.target, timeout_s=60) as connection:
        with pytest.raises(DubstageCallError, match="OVERLOADED"):
            _ = [frame async for frame in gateway.live.aio(connection, listener, actor_id="ann", sample_rate_hz=16000)]
        del listener
        while is_held(listening):  # noqa: ASYNC110 - gRPC lets go of the sound when it likes
            await asyncio.sleep(0.01)
        shown = [frame async for frame in gateway.live.aio(connection, sound, actor_id="ann", sample_rate_hz=16000)]
    assert (len(shown), full.heard) == (3, FullGateway.WHOLE)


def test_a_call_carries_the_token_and_the_time(server: FakeServer) -> None:
    with connect(server.target, token=" secret\n", timeout_s=333) as connection:
        render.list_models(connection)
    assert server.metadata["authorization"] == "Bearer secret"
    assert 250 < (server.seconds_left or 0) < 334
    with connect(server.target) as connection:
        render.list_models(connection)
        assert 500 < (server.seconds_left or 0) < 610
        list(render.personalize(connection, model="toy", bank=STYLE))
        assert 3000 < (server.seconds_left or 0) < 3610
    assert "authorization" not in server.metadata


def test_unreachable_server_saw_nothing() -> None:
    """A server that is not there has seen nothing of the call."""
    with connect("127.0.0.1:1", timeout_s=60) as connection, pytest.raises(DubstageCallError) as caught:
        render.list_models(connection)
    assert (caught.value.code, caught.value.unsent, caught.value.retryable) == ("UNAVAILABLE", True, True)


def test_4k_picture_fits_connection(server: FakeServer, connection: Connection) -> None:
    """A picture of 4K goes through a connection without further options."""
    server.answers[rpcs.face.TRACK] = [face_pb2.TrackResponse(frames=[face_pb2.FrameFaces(frame_index=7)])]
    tracked = list(face.track(connection, [np.zeros((2160, 3840, 3), np.uint8)]))
    assert [frame.frame_index for frame in tracked] == [7]
    assert len(server.received[1].frame.image.data) == 3 * 2160 * 3840


def test_oversized_message_names_limit(server: FakeServer) -> None:
    """A message over the limit of the connection is named with the limit."""
    with connect(server.target, max_message_bytes=1000) as connection, pytest.raises(DubstageCallError) as caught:
        list(face.track(connection, [np.zeros((100, 100, 3), np.uint8)]))
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert "max_message_bytes" in caught.value.message
    assert not caught.value.retryable
