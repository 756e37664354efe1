"""The face stage's messages, and the stage behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from skimage.data import astronaut

from dubstage.client import from_tensor
from dubstage.face.v1 import face_pb2 as pb
from dubstage.face.v1.face_pb2_grpc import FaceServiceStub
from services.common.errors import InvalidRequestError
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.face.__main__ import compose
from services.face.convert import NumberedPicture, face_to_proto, frames_to_proto, options_from_proto, picture_from_proto
from services.face.settings import FaceSettings
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, Reason, TrackOptions
from tests.contract.face.requests import frames_from_proto, options_to_proto, picture_to_proto

if TYPE_CHECKING:
    from dubstage.face.v1.face_pb2_grpc import FaceServiceAsyncStub

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])
PICTURES = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(6)]


def in_process(options: TrackOptions) -> list[FrameFaces]:
    tracker = FaceTracker(Networks(), options)
    return [frame for picture in PICTURES for frame in tracker.push(picture)] + tracker.finish()


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[FaceServiceAsyncStub]:
    settings = load_settings(FaceSettings, port=0)
    async with server_of("face", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield FaceServiceStub(channel)


async def stream(requests: Iterable[pb.TrackRequest]) -> AsyncIterator[pb.TrackRequest]:
    for request in requests:
        yield request


def test_faces_come_through_a_message_unchanged() -> None:
    frames = in_process(TrackOptions())
    copies = frames_from_proto(pb.TrackResponse.FromString(frames_to_proto(frames).SerializeToString()))
    assert [frame.frame_index for frame in copies] == list(range(6))
    for before, after in zip(frames, copies, strict=True):
        (face,), (copy,) = before.faces, after.faces
        np.testing.assert_array_equal(copy.landmarks, face.landmarks)
        np.testing.assert_array_equal(copy.mouth_landmarks, face.mouth_landmarks)
        np.testing.assert_array_equal(copy.pose.rotation, face.pose.rotation)
        np.testing.assert_array_equal(copy.pose.translation, face.pose.translation)
        assert (copy.pose.scale, copy.face_id, copy.reason) == (face.pose.scale, face.face_id, Reason.DUBBED)
        numbers = [*face.box, face.confidence, face.mouth_visibility, face.blink]
        assert [*copy.box, copy.confidence, copy.mouth_visibility, copy.blink] == [np.float32(number) for number in numbers]


def test_hands_come_through_in_pixels() -> None:
    """A face without a hand has no field of hands."""
    (face,) = in_process(TrackOptions())[0].faces
    hands = np.random.default_rng(0).normal(100, 30, (2, 21, 2)).astype(np.float32)
    assert not face_to_proto(face).HasField("hands")
    np.testing.assert_array_equal(from_tensor(face_to_proto(replace(face, hands=hands)).hands), hands)


def test_options_come_through_and_have_defaults() -> None:
    options = TrackOptions(max_faces=2, half_width=0, embed_every=7)
    assert options_from_proto(options_to_proto(options)) == options
    assert options_from_proto(pb.TrackRequest(config=pb.TrackConfig())) == TrackOptions(max_faces=4, half_width=3)


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        (pb.TrackRequest(), InvalidRequestError, "config"),
        (picture_to_proto(0, PHOTOGRAPH), InvalidRequestError, "config"),
        (pb.TrackRequest(config=pb.TrackConfig(max_faces=9)), InvalidRequestError, "config.max_faces"),
        (pb.TrackRequest(config=pb.TrackConfig(smoothing_half_width=5)), InvalidRequestError, "config.smoothing_half_width"),
    ],
)
def test_configs_that_cannot_be_used_say_why(request_, error, field) -> None:
    with pytest.raises(error) as caught:
        options_from_proto(request_)
    assert getattr(caught.value, "field", None) == field


def test_frames_that_do_not_follow_are_refused() -> None:
    before = NumberedPicture(4, PHOTOGRAPH)
    assert picture_from_proto(picture_to_proto(5, PHOTOGRAPH), before).frame_index == 5
    for request, field in (
        (picture_to_proto(6, PHOTOGRAPH), "frame.frame_index"),
        (picture_to_proto(4, PHOTOGRAPH), "frame.frame_index"),
        (picture_to_proto(5, PHOTOGRAPH[:-2]), "frame.image"),
        (options_to_proto(TrackOptions()), "frame"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            picture_from_proto(request, before)
        assert caught.value.field == field
    with pytest.raises(InvalidRequestError):
        picture_from_proto(picture_to_proto(-1, PHOTOGRAPH), None)


@pytest.mark.parametrize("embed_every", [0, 2])
async def test_server_streams_tracker_answers(stub, embed_every: int) -> None:
    """The server answers as the tracker does before the stream ends."""
    options = TrackOptions(half_width=2, embed_every=embed_every)
    call = stub.Track()
    await call.write(options_to_proto(options))
    for index, picture in enumerate(PICTURES[:3]):
        await call.write(picture_to_proto(index, picture))
    replies = [await call.read()]  # the stream is still open
    for index, picture in enumerate(PICTURES[3:], start=3):
        await call.write(picture_to_proto(index, picture))
    await call.done_writing()
    while (reply := await call.read()) is not grpc.aio.EOF:
        replies.append(reply)
    served = [frame.SerializeToString(deterministic=True) for reply in replies for frame in reply.frames]
    direct = [frame.SerializeToString(deterministic=True) for frame in frames_to_proto(in_process(options)).frames]
    assert served == direct
    measured = [face.HasField("embedding") for reply in replies for frame in reply.frames for face in frame.faces]
    assert measured == [bool(embed_every) and index % embed_every == 0 for index in range(6)]


async def test_gap_names_its_field(stub) -> None:
    """A gap ends the call with the field named."""
    call = stub.Track(stream([options_to_proto(TrackOptions()), picture_to_proto(0, PHOTOGRAPH), picture_to_proto(2, PHOTOGRAPH)]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "frame 1 must follow" in str(caught.value.details())
