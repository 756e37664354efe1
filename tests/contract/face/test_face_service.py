"""The face stage's messages, and the stage behind a real server."""

from collections.abc import Callable
from dataclasses import replace

import grpc.aio
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from skimage.data import astronaut

from dubstage.client import from_tensor, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from dubstage.face.v1.face_pb2_grpc import FaceServiceStub
from services.common.errors import InvalidRequestError
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.face.__main__ import compose
from services.face.convert import (
    FitConfig,
    NumberedPicture,
    face_to_proto,
    frames_to_proto,
    options_from_proto,
    picture_from_proto,
    state_from_proto,
    state_to_proto,
)
from services.face.settings import FaceSettings
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, Reason, TrackOptions
from tests.contract.face.requests import frames_from_proto, options_to_proto, picture_to_proto
from tests.refusals import raised, rpc_refused

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])
PICTURES = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(6)]


def in_process(options: TrackOptions) -> list[FrameFaces]:
    tracker = FaceTracker(Networks(), options)
    return [frame for picture in PICTURES for frame in tracker.push(picture)] + tracker.finish()


@pytest_asyncio.fixture
async def stub():
    settings = load_settings(FaceSettings, port=0)
    async with server_of("face", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield FaceServiceStub(channel)


def test_messages_make_a_round_trip() -> None:
    """Faces, hands and options come through a message unchanged. A face without a hand has no field of hands."""
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
    (face,) = in_process(TrackOptions())[0].faces
    hands = np.random.default_rng(0).normal(100, 30, (2, 21, 2)).astype(np.float32)
    assert not face_to_proto(face).HasField("hands")
    np.testing.assert_array_equal(from_tensor(face_to_proto(replace(face, hands=hands)).hands), hands)
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
        with raised(InvalidRequestError, field=field):
            picture_from_proto(request, before)
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


async def test_frames_must_follow_each_other(stub) -> None:
    """A gap ends the call, and the first frame after a state is the frame that follows, as large as before."""
    call = stub.Track([options_to_proto(TrackOptions()), picture_to_proto(0, PHOTOGRAPH), picture_to_proto(2, PHOTOGRAPH)])
    with rpc_refused("frame 1 must follow"):
        async for _ in call:
            pass
    config = pb.TrackRequest(config=pb.TrackConfig(resume=a_state()))
    for index, picture, text in ((0, PHOTOGRAPH, "frame 3 must follow"), (3, PHOTOGRAPH[:-2], "340 x 318")):
        with rpc_refused(text):
            async for _ in stub.Track([config, picture_to_proto(index, picture)]):
                pass


async def resumed(stub, half: int, *, fitting: FitConfig | None = None) -> tuple[list[bytes], list[bytes]]:
    """Frames of one call, and of a call that ends after `half` frames and another call that goes on from the state."""
    config = options_to_proto(TrackOptions(half_width=1, embed_every=2), fitting=fitting)
    config.config.state_every = 2

    async def answers(first: int, config: pb.TrackRequest) -> list[pb.TrackResponse]:
        pictures = [picture_to_proto(index, picture) for index, picture in enumerate(PICTURES[first:], start=first)]
        return [reply async for reply in stub.Track([config, *pictures])]

    whole = await answers(0, config)
    assert [reply.HasField("state") for reply in whole] == [False, True, False, True, False, False]
    assert not any(reply.resumed for reply in whole)
    config.config.resume.CopyFrom(whole[half - 1].state)
    rest = await answers(half, config)
    assert all(reply.resumed for reply in rest)
    one, other = (
        [frame.SerializeToString(deterministic=True) for reply in part for frame in reply.frames] for part in (whole, rest)
    )
    return one, [*one[:half], *other]


@pytest.mark.parametrize("fitting", [None, FitConfig("mediapipe_468", None)])
async def test_another_call_goes_on(stub, fitting: FitConfig | None) -> None:
    """A call that goes on from a state answers the bytes of the undivided call."""
    whole, parts = await resumed(stub, 4, fitting=fitting)
    assert parts == whole


def a_state() -> common_pb2.StreamState:
    tracker = FaceTracker(Networks(), TrackOptions())
    for picture in PICTURES:
        tracker.push(picture)
    message = state_to_proto(tracker.state())
    assert message is not None
    return message


def array_of(state: common_pb2.StreamState, name: str) -> common_pb2.Tensor:
    return next(each.tensor for each in state.tensors if each.name == name)


def test_states_that_cannot_be_used_say_why() -> None:
    """Each array of a state is checked."""
    state = a_state()

    def refused(change: Callable[[common_pb2.StreamState], object], options: TrackOptions = TrackOptions()) -> str:
        wrong = common_pb2.StreamState.FromString(state.SerializeToString())
        change(wrong)
        request = pb.TrackRequest(config=pb.TrackConfig(resume=wrong))
        with pytest.raises(InvalidRequestError) as caught:
            state_from_proto(request, options, None)
        assert (caught.value.field or "").startswith("config.resume")
        return caught.value.message

    def put(name: str, array: npt.ArrayLike) -> Callable[[common_pb2.StreamState], object]:
        return lambda wrong: array_of(wrong, name).CopyFrom(to_tensor(np.asarray(array)))

    def with_nan(wrong: common_pb2.StreamState) -> None:
        tensor = array_of(wrong, "readings.landmarks")
        values = from_tensor(tensor).copy()
        values[0, 0, 0] = np.nan
        tensor.CopyFrom(to_tensor(values))

    assert "takes 2" in refused(lambda wrong: setattr(wrong, "layout", 1))
    assert "'looks.yaw'" in refused(lambda wrong: wrong.tensors.remove(next(t for t in wrong.tensors if t.name == "looks.yaw")))
    assert "'stream'" in refused(lambda wrong: wrong.tensors.add().CopyFrom(wrong.tensors[0]))
    assert "not a finite number" in refused(with_nan)
    assert "expected shape" in refused(put("people.scale", np.ones(2)))
    assert "0.001 to 1000" in refused(put("people.scale", np.zeros(1)))
    assert "0 x 320 pixels" in refused(put("stream", np.array([3, 0, 0, 320])))
    assert "not those of a window" in refused(put("stream", np.array([1, 0, 340, 320])))
    assert "below 1" in refused(put("active.face", np.array([7])))
    assert "do not ascend" in refused(put("readings.frame", np.zeros(6, np.int64)))
    assert "no face" in refused(put("readings.landmarks", np.zeros((6, 478, 3), np.float32)))
    assert "rotation" in refused(put("readings.pose", np.ones((6, 13))))
    assert "shorter" in refused(put("active.region", np.zeros((1, 4))))
    assert "at most 2 are possible" in refused(lambda _: None, TrackOptions(half_width=1))
    sized = common_pb2.NamedTensor(name="stream", tensor=to_tensor(np.zeros(1 << 20)))
    assert "at most 8388608 bytes" in refused(lambda wrong: wrong.tensors.append(sized))
