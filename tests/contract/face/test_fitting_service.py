"""Morphable-model coefficients and identities through a real server of the face stage."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from skimage.data import astronaut

from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from dubstage.face.v1.face_pb2_grpc import FaceServiceStub
from services.common.errors import BackendUnavailableError, InvalidRequestError
from services.common.face.identity import identity_from_arrays
from services.common.face.morphable_models import MorphableModels
from services.common.geometry.morphable_model import default_model
from services.common.server.process import server_of
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.face.__main__ import compose
from services.face.convert import FitConfig, face_from_proto
from services.face.fitting.model import FittableModels
from services.face.fitting.streaming import StreamFitter
from services.face.fitting.three_stage import ColouredFrames
from services.face.settings import FaceSettings
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, TrackOptions
from tests.contract.face.requests import frames_from_proto, options_to_proto, picture_to_proto
from tests.refusals import rpc_refused
from tests.unit.common.geometry.small_models import small_model

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])
PICTURES = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(5)]
OPTIONS = TrackOptions(max_faces=1, half_width=1)


@pytest.fixture
def settings(tmp_path: Path) -> FaceSettings:
    models = tmp_path / "models"
    models.mkdir()
    small_model().save(models / "mine.safetensors")
    return load_settings(FaceSettings, port=0, artefacts_url=str(tmp_path / "artefacts"), morphable_models=models)


@pytest_asyncio.fixture
async def stub(settings: FaceSettings):
    async with server_of("face", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield FaceServiceStub(channel)


async def track(stub, model: str = "", identity: ArtefactRef | None = None, *, colours: bool = False) -> list[pb.FaceTrack]:
    requests = [options_to_proto(OPTIONS, fitting=FitConfig(model, identity, colours))]
    requests += [picture_to_proto(index, picture) for index, picture in enumerate(PICTURES)]
    return [face async for reply in stub.Track(requests) for frame in reply.frames for face in frame.faces]


async def begun(stub, config: pb.TrackRequest) -> None:
    """Send a config that is refused, and no more: a stream that is cut while it sends can fail otherwise."""
    async for _ in stub.Track([config]):
        pass


async def fit(stub, faces: list[pb.FaceTrack], model: str = "", *, three_stage: bool = False) -> pb.FitIdentityResponse:
    config = pb.FitIdentityRequest(config=pb.FitIdentityConfig(morphable_model=model, three_stage=three_stage))
    images = [picture_to_proto(0, picture).frame.image for picture in PICTURES]
    seen = (pb.FitIdentityFrame(image=image, face=face) for image, face in zip(images, faces, strict=False))
    return await stub.FitIdentity([config, *(pb.FitIdentityRequest(frame=frame) for frame in seen)])


def ref(message) -> ArtefactRef:
    return ArtefactRef(message.uri, message.sha256, message.size_bytes)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def direct(fitter: StreamFitter) -> list[FrameFaces]:
    tracker = FaceTracker(Networks(), OPTIONS, fitter=fitter)
    return [frame for picture in PICTURES for frame in tracker.push(picture)] + tracker.finish()


async def test_named_model_is_fitted(stub) -> None:
    """The model that a call names, ours or a user's, is fitted as in the tracker, and no model where none is named."""
    faces = await track(stub, "mediapipe_468")
    expected = direct(StreamFitter(FittableModels(MorphableModels()).get("mediapipe_468")))
    assert len(faces) == len(PICTURES)
    for message, frame in zip(faces, expected, strict=True):
        face, own = face_from_proto(message), frame.faces[0]
        assert face.coefficients.model == "mediapipe_468"
        assert np.array_equal(face.coefficients.identity, own.coefficients.identity)
        assert np.array_equal(face.coefficients.expression, own.coefficients.expression)
        assert np.array_equal(face.coefficients.pose.rotation, own.coefficients.pose.rotation)
        assert face.coefficients.expression.shape == (64,)
        assert not message.coefficients.HasField("light")
        assert 0.0 < message.landmark_error < 1.5
    assert not any(face.HasField("coefficients") for face in await track(stub))
    faces = await track(stub, "mine")
    assert face_from_proto(faces[0]).coefficients.expression.shape == (4,)
    for message in await track(stub, "mediapipe_468"):
        copy = frames_from_proto(pb.TrackResponse(frames=[pb.FrameFaces(faces=[message])]))[0].faces[0]
        assert copy.coefficients.landmark_error == message.landmark_error


async def test_an_identity_is_fitted_stored_and_used(stub, settings: FaceSettings) -> None:
    answer = await fit(stub, await track(stub))
    assert (answer.coefficients.model, answer.num_frames) == ("mediapipe_468", len(PICTURES))
    assert 0.0 < answer.landmark_error < 1.0
    assert 0.0 < answer.photometric_error < 40.0
    stored = ArtefactStore(settings.artefacts_url).get_arrays(ref(answer.identity))
    identity = identity_from_arrays(stored, default_model())
    assert identity.texture.shape == (256, 256, 3)
    assert answer.identity.size_bytes < 1 << 20

    faces = await track(stub, identity=ref(answer.identity))
    for message in faces:
        face = face_from_proto(message)
        assert np.array_equal(face.coefficients.identity, identity.identity)
        assert np.array_equal(face.coefficients.light, identity.light)
        assert message.landmark_error < 0.5
    expected = direct(StreamFitter(FittableModels(MorphableModels()).get("mediapipe_468"), identity))
    assert np.array_equal(face_from_proto(faces[2]).coefficients.expression, expected[2].faces[0].coefficients.expression)


async def test_three_fitting_stages(stub, settings: FaceSettings) -> None:
    """The three stages are fitted where the caller asks."""
    answer = await fit(stub, await track(stub), three_stage=True)
    assert 0.0 < answer.photometric_error < 40.0
    stored = ArtefactStore(settings.artefacts_url).get_arrays(ref(answer.identity))
    identity = identity_from_arrays(stored, default_model())
    faces = await track(stub, identity=ref(answer.identity), colours=True)
    lights = [face_from_proto(message).coefficients.light for message in faces]
    assert not np.array_equal(lights[0], lights[-1])
    face = FittableModels(MorphableModels()).get("mediapipe_468")
    expected = direct(StreamFitter(face, identity, ColouredFrames(face, identity)))
    for message, frame in zip(faces, expected, strict=True):
        own = frame.faces[0].coefficients
        assert np.array_equal(face_from_proto(message).coefficients.expression, own.expression)
        assert np.array_equal(face_from_proto(message).coefficients.light, own.light)
        assert message.landmark_error < 0.6


def test_unusable_rasteriser_ends_start(settings: FaceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="pytorch3d is not installed"):
        compose(settings.model_copy(update={"rasteriser": "pytorch3d"}))
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_RASTERISER"):
        load_settings(FaceSettings, rasteriser="opengl")


async def test_fit_identity_needs_few_things(stub) -> None:
    """One still picture is enough; the config and whole frames are needed."""
    answer = await fit(stub, (await track(stub))[:1])
    assert answer.num_frames == 1
    assert answer.landmark_error < 0.5
    for requests, field in (
        ([], "config"),
        ([pb.FitIdentityRequest(frame=pb.FitIdentityFrame())], "config"),
        ([pb.FitIdentityRequest(config=pb.FitIdentityConfig())] * 2, "frame"),
        ([pb.FitIdentityRequest(config=pb.FitIdentityConfig()), pb.FitIdentityRequest(frame=pb.FitIdentityFrame())], "frame.image"),
    ):
        with rpc_refused(field):
            await stub.FitIdentity(requests)


@pytest.mark.parametrize(("model", "said"), [("flame", "mediapipe_468, mine"), ("../mine", "no morphable model")])
async def test_a_model_that_is_not_there_is_named(stub, model: str, said: str) -> None:
    with rpc_refused(said, code="NOT_FOUND") as caught:
        await begun(stub, pb.TrackRequest(config=pb.TrackConfig(morphable_model=model)))
    assert reason_of(caught.value) == "MODEL_NOT_FOUND"


async def test_wrong_identity_refused(stub, settings: FaceSettings) -> None:
    """An identity of another model, of no kind, or none where colours need one, is refused."""
    answer = await fit(stub, (await track(stub))[:1])
    with rpc_refused("'mediapipe_468'"):
        await begun(stub, options_to_proto(OPTIONS, fitting=FitConfig("mine", ref(answer.identity))))

    other = ArtefactStore(settings.artefacts_url).put_arrays({"boxes": np.zeros(2, np.float32)}, {"format": "something else"})
    with rpc_refused("no face identity"):
        await begun(stub, options_to_proto(OPTIONS, fitting=FitConfig("", other)))

    assert ArtefactStore(settings.artefacts_url).delete(other)
    with rpc_refused(code="NOT_FOUND") as caught:
        await begun(stub, options_to_proto(OPTIONS, fitting=FitConfig("", other)))
    assert reason_of(caught.value) == "ARTEFACT_NOT_FOUND"
    with rpc_refused("config.fit_colours needs config.identity"):
        await begun(stub, pb.TrackRequest(config=pb.TrackConfig(morphable_model="mediapipe_468", fit_colours=True)))


async def test_footage_without_face_is_error(stub) -> None:
    faces = (await track(stub))[:2]
    for face in faces:
        face.reason = common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    for given in (faces, []):
        with rpc_refused(code="FAILED_PRECONDITION") as caught:
            await fit(stub, given)
        assert reason_of(caught.value) == "NO_USABLE_FOOTAGE"
    faces[0].reason = common_pb2.FRAME_REASON_SILENT
    with rpc_refused("no reason FRAME_REASON_SILENT", field="frame.face.reason"):
        await fit(stub, faces)


async def test_the_deadline_ends_a_fit(stub) -> None:
    faces = await track(stub)
    config = pb.FitIdentityRequest(config=pb.FitIdentityConfig())
    image = picture_to_proto(0, PICTURES[0]).frame.image
    sent: list[bool] = []

    async def endless() -> AsyncIterator[pb.FitIdentityRequest]:
        yield config
        yield pb.FitIdentityRequest(frame=pb.FitIdentityFrame(image=image, face=faces[0]))
        sent.append(True)
        await asyncio.sleep(600)

    # Nothing may be on its way when the deadline comes: grpc.aio would answer INTERNAL in place of it (grpc/grpc#36066). A short
    # deadline may come too early, on a machine that pauses.
    for timeout_s in (0.6, 6.0, 30.0):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.FitIdentity(endless(), timeout=timeout_s)
        if sent and caught.value.code() is not grpc.StatusCode.INTERNAL:
            break
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(await track(stub)) == len(PICTURES)  # and the stage goes on serving
