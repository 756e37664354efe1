"""FitIdentity's algorithm: which frames are used, how many are held, and what comes out."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from services.common.errors import NoUsableFootage
from services.common.face.crops import HeadPose, fit_head_pose
from services.common.face.identity import identity_from_arrays
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.face.fitting import frames as fitting_frames
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import model_landmarks
from services.face.fitting.texture import best_frames
from services.face.types import Reason, TrackedFace
from tests.unit.face.fitting.synthetic_face import scene

FACE = model_landmarks(default_model())
SCENE = scene()
TRACKED = SCENE.landmarks().astype(np.float32)


@cache
def pictures():
    return SCENE.pictures(np.arange(0, 40, 8))


def face(frame, reason=Reason.DUBBED, pose=None):
    landmarks = TRACKED[frame]
    return TrackedFace(
        face_id=0,
        box=(0.0, 0.0, 1.0, 1.0),
        landmarks=landmarks,
        pose=pose or fit_head_pose(landmarks),
        mouth_landmarks=np.zeros((59, 3), np.float32),
        confidence=1.0,
        mouth_visibility=1.0,
        blink=0.0,
        reason=reason,
    )


def fitted(frames, **options):
    fitter = IdentityFitter(FACE, **options)
    for frame in frames:
        fitter.push(pictures()[frame // 8 if frame % 8 == 0 else 0], face(frame))
    return fitter.finish()


@cache
def of_five_frames():
    return fitted(range(0, 40, 8))


def test_fit_shape_colours_texture():
    """A person is fitted with shape colours and texture."""
    found = of_five_frames()
    assert (found.model, found.model_digest, found.num_frames) == ("mediapipe_468", default_model().digest, 5)
    assert found.landmark_error < 0.3
    assert found.photometric_error < 5.0
    assert found.texture.shape == (256, 256, 3)
    assert 0.2 < (found.seen > 0).mean() <= 1.0
    true = default_model().albedo(SCENE.albedo)
    uv = np.clip((default_model().uv * 256).astype(int), 0, 255)
    cheeks = [50, 205, 280, 425]
    ratio = found.texture[uv[cheeks, 1], uv[cheeks, 0]] / 255.0 / true[cheeks]
    assert ratio.std(0) / ratio.mean(0) == pytest.approx(0.0, abs=0.08)  # the factor between light and albedo is free


def test_three_stage_same_shape():
    """The three stage fit finds the same shape and its own colours."""
    plain, found = of_five_frames(), fitted(range(0, 40, 8), three_stage=True)
    assert np.array_equal(found.offset, plain.offset)
    # From few frames the other fit lets the colours move the identity a little.
    assert np.abs(found.identity - plain.identity).max() < 0.1
    assert found.photometric_error < 5.0
    assert not np.array_equal(found.albedo, plain.albedo)
    assert found.texture.shape == (256, 256, 3)


def test_three_stage_same_bytes():
    """The three stage fit gives the same bytes again."""
    once, again = fitted([0], three_stage=True), fitted([0], three_stage=True)
    assert np.array_equal(once.texture, again.texture)


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
def test_pytorch3d_finds_the_same_person():
    plain, found = fitted([0]), fitted([0], backend="pytorch3d")
    assert np.abs(found.albedo - plain.albedo).max() < 0.05
    assert found.photometric_error == pytest.approx(plain.photometric_error, rel=0.05)
    seen = (plain.seen > 0) & (found.seen > 0)
    assert np.abs(found.texture.astype(float) - plain.texture)[seen].mean() < 1.0


def test_single_still_same_bytes():
    """A single still is enough and gives the same bytes again."""
    once, again = fitted([0]), fitted([0])
    assert once.num_frames == 1
    for field in dataclasses.fields(once):
        assert np.array_equal(getattr(once, field.name), getattr(again, field.name)), field.name


def test_unusable_frames_skipped():
    """Frames that cannot be used are passed over and none at all is an error."""
    fitter = IdentityFitter(FACE)
    fitter.push(pictures()[0], face(0, Reason.OCCLUDED_MOUTH))
    fitter.push(pictures()[0], face(0, Reason.LOW_CONFIDENCE))
    with pytest.raises(NoUsableFootage, match="none of 2 frames"):
        fitter.finish()


def test_three_quarter_yes_profile_no():
    """A portrait in three quarter view serves and a full profile does not."""

    def turned(degrees):
        angle = np.radians(degrees)
        rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
        return HeadPose(1.0, rotation, np.zeros(3))

    fitter = IdentityFitter(FACE)
    fitter.push(pictures()[0], face(0, Reason.PROFILE_VIEW, turned(70.0)))
    with pytest.raises(NoUsableFootage):
        fitter.finish()
    fitter.push(pictures()[0], face(0, Reason.PROFILE_VIEW, turned(36.0)))
    assert fitter.finish().num_frames == 1


def test_kept_frames_bounded_and_spread(monkeypatch):
    """Memory is bounded and the frames held are spread over the footage."""
    monkeypatch.setattr(fitting_frames, "MAX_FRAMES", 6)
    held = fitting_frames.HeldFrames()
    for frame in range(40):
        held.push(pictures()[0], face(frame))
        assert len(held.frames) <= 6
    assert [_which(placed.landmarks) for placed in held.frames] == [0, 8, 16, 24, 32]


def test_neutral_frontal_frames_first():
    """The best frames are the most neutral and least turned."""
    angle = np.radians([0.0, 0.0, 20.0])
    rotation = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angle])
    assert best_frames(np.array([3.0, 0.5, 0.0]), rotation).tolist() == [1, 0, 2]


def _which(landmarks):
    """Frame of the scene whose shape these landmarks have."""

    def centred(points):
        shape = points[..., :468, :2] - points[..., :468, :2].mean(-2, keepdims=True)
        return shape / np.linalg.norm(shape, axis=(-2, -1), keepdims=True)

    poses = [fit_head_pose(points) for points in TRACKED]
    placed = [fitting_frames._placed(pictures()[0], face(frame)).landmarks for frame in range(len(poses))]
    return int(np.abs(np.stack([centred(each) for each in placed]) - centred(landmarks)).sum((1, 2)).argmin())


@pytest.mark.parametrize("without", ["albedo", "texture coordinates"])
def test_model_without_colours(without):
    """A model without colours or texture coordinates gives what it can."""
    model = default_model()
    if without == "albedo":
        empty = np.zeros((0, 3, 0), np.float32)
        model = dataclasses.replace(model, albedo_mean=None, albedo_basis=empty, albedo_deviation=np.zeros(0, np.float32))
    else:
        model = dataclasses.replace(model, uv=np.zeros((0, 2), np.float32), uv_triangles=np.zeros((0, 3), np.int32))
    fitter = IdentityFitter(model_landmarks(model))
    fitter.push(pictures()[0], face(0))
    found = fitter.finish()
    assert found.texture.shape == (0, 0, 3)
    assert found.light.shape == (9, 3)
    assert len(found.albedo) == model.num_albedo
    assert (found.photometric_error > 0.0) == (without != "albedo")
    again = identity_from_arrays(decode_arrays(encode_arrays(found.arrays(), found.metadata())), model)
    assert np.array_equal(again.offset, found.offset)
