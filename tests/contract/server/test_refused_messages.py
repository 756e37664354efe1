"""Tests of requests that reach no handler: bytes that are no message, too large messages, and fields out of their bounds."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2, face_pb2_grpc
from dubstage.render.v1 import render_pb2, render_pb2_grpc
from services.common import errors
from services.common.server.error_status import from_rpc_error
from tests.contract.server.helpers import ONCE, answer
from tests.refusals import raised

MIB = 1 << 20
KINDS = ["Unary", "Download", "Upload", "Stream"]
RPCS = {
    "dubstage.render.v1.RenderService/ListModels": "Unary",
    "dubstage.render.v1.RenderService/Personalize": "Download",
    "dubstage.face.v1.FaceService/FitIdentity": "Upload",
    "dubstage.face.v1.FaceService/Track": "Stream",
}


class Faces(face_pb2_grpc.FaceServiceServicer):
    async def Track(self, request_iterator: Any, context: Any) -> AsyncIterator[face_pb2.TrackResponse]:
        async for _ in request_iterator:
            yield face_pb2.TrackResponse()

    async def FitIdentity(self, request_iterator: Any, context: Any) -> face_pb2.FitIdentityResponse:
        return face_pb2.FitIdentityResponse(num_frames=len([request async for request in request_iterator]))


class Renders(render_pb2_grpc.RenderServiceServicer):
    async def Render(self, request_iterator: Any, context: Any) -> AsyncIterator[render_pb2.RenderResponse]:
        async for _ in request_iterator:
            yield render_pb2.RenderResponse()

    async def ListModels(self, request: Any, context: Any) -> render_pb2.ListModelsResponse:
        return render_pb2.ListModelsResponse()

    async def Personalize(self, request: Any, context: Any) -> AsyncIterator[render_pb2.PersonalizeResponse]:
        yield render_pb2.PersonalizeResponse()


def add_servicers(server: grpc.aio.Server) -> None:
    face_pb2_grpc.add_FaceServiceServicer_to_server(Faces(), server)
    render_pb2_grpc.add_RenderServiceServicer_to_server(Renders(), server)


async def failure(address: str, rpc: str, kind: str, *messages: bytes) -> grpc.aio.AioRpcError:
    """How a call of raw bytes fails, by a client that has no limits of its own."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

    async def ask(channel: Any) -> None:
        match kind:
            case "Unary":
                await channel.unary_unary(f"/{rpc}")(messages[0], timeout=60)
            case "Upload":
                await channel.stream_unary(f"/{rpc}")(messages, timeout=60)
            case "Download":
                _ = [reply async for reply in channel.unary_stream(f"/{rpc}")(messages[0], timeout=60)]
            case _:
                _ = [reply async for reply in channel.stream_stream(f"/{rpc}")(messages, timeout=60)]

    async with grpc.aio.insecure_channel(address, options=unlimited) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel)
    return caught.value


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("junk", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", bytes(10), b"\x0a\x02\x08"])
async def test_invalid_bytes_are_callers_mistake(echo: Any, rpc: str, junk: bytes) -> None:
    server = await echo.serve(answer, register=add_servicers)
    error = await failure(server.address, rpc, RPCS[rpc], junk)
    found = from_rpc_error(error, peer="echo")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(found, errors.InvalidRequestError)
    assert f"the {len(junk)} bytes that were sent are no dubstage." in found.message
    assert found.stage == "echo"


async def test_invalid_bytes_spare_health(echo: Any) -> None:
    """Bytes that are no message do not disturb health and reflection."""
    server = await echo.serve(answer)
    for rpc, kind in (
        ("grpc.health.v1.Health/Check", "Unary"),
        ("grpc.health.v1.Health/Watch", "Download"),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "Stream"),
    ):
        error = await failure(server.address, rpc, kind, b"\xff\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, rpc


@pytest.mark.parametrize("kind", KINDS)
async def test_oversized_message_shows_size(echo: Any, kind: str) -> None:
    """A message over the limit is named by its size."""
    server = await echo.serve(answer)
    error = await failure(server.address, f"{echo.service}/{kind}", kind, bytes(17 * MIB))
    found = from_rpc_error(error, peer="echo")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(found, errors.MessageTooLargeError)
    assert "17.0 MiB is too large: a message may have 16.0 MiB" in found.message
    assert found.stage == "echo"


@pytest.mark.parametrize("kind", KINDS)
async def test_far_oversized_message_refused_by_grpc(echo: Any, kind: str) -> None:
    """A message far over the limit is refused by gRPC itself."""
    server = await echo.serve(answer, max_message_bytes=MIB)
    error = await failure(server.address, f"{echo.service}/{kind}", kind, bytes(5 * MIB))
    assert isinstance(from_rpc_error(error, peer="echo"), errors.MessageTooLargeError)


@pytest.mark.parametrize("kind", KINDS)
async def test_oversized_answer_is_error(echo: Any, kind: str) -> None:
    """An answer over the limit is an error that says so."""

    async def grow(message: bytes) -> bytes:
        return message * 5

    client = echo.connect(await echo.serve(grow, max_message_bytes=8192))
    with raised(errors.MessageTooLargeError, match=r"the answer of .* is too large", stage="echo"):
        await client.call(kind, bytes(4000), policy=ONCE)


async def test_field_bounds_checked_before_handler(echo: Any) -> None:
    """A field out of its bounds is refused before the handler and named."""
    server = await echo.serve(answer, register=add_servicers)
    rate = common_pb2.Rational(num=1 << 62, den=1)
    config = face_pb2.TrackRequest(config=face_pb2.TrackConfig(timeline=common_pb2.Timeline(frame_rate=rate)))
    personalize = render_pb2.PersonalizeRequest(model="ugc", num_steps=(1 << 32) - 1)
    for rpc, kind, request, field in (
        ("dubstage.face.v1.FaceService/Track", "Stream", config, "config.timeline.frame_rate.num"),
        ("dubstage.face.v1.FaceService/FitIdentity", "Upload", face_pb2.FitIdentityRequest(
            frame=face_pb2.FitIdentityFrame(face=face_pb2.FaceTrack(box=[0, 0, float("nan"), 1]))), "frame.face.box"),
        ("dubstage.render.v1.RenderService/Personalize", "Download", personalize, "num_steps"),
    ):  # fmt: skip
        found = from_rpc_error(await failure(server.address, rpc, kind, request.SerializeToString()), peer="echo")
        assert isinstance(found, errors.InvalidRequestError)
        assert found.field == field
