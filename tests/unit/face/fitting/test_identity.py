"""FitIdentity's algorithm: which frames are used, how many are held, and what comes out."""

from __future__ import annotations

import dataclasses
from functools import cache

import av
import numpy as np
import pytest

from services.common.errors import NoUsableFootageError
from services.common.face.crops import HeadPose, fit_head_pose
from services.common.face.drawing import FacePicture
from services.common.face.identity import identity_from_arrays
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import UvMap, interpolate, rasterise, sample_texture, uv_map
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.face.fitting import frames as fitting_frames
from services.face.fitting.identity import IdentityFitter, Texture, best_frames, fill, merge, unwrap
from services.face.fitting.model import model_landmarks
from services.face.tracking import FaceTracker, Networks
from services.face.types import Reason, TrackedFace, TrackOptions
from tests.unit.face.fitting.synthetic_face import scene

FACE = model_landmarks(default_model())
SCENE = scene()
TRACKED = SCENE.landmarks().astype(np.float32)
SIDE = 96


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


def turned(degrees):
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
    return HeadPose(1.0, rotation, np.zeros(3))


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
    with pytest.raises(NoUsableFootageError, match="none of 2 frames"):
        fitter.finish()


def test_three_quarter_yes_profile_no():
    """A portrait in three quarter view serves and a full profile does not."""
    fitter = IdentityFitter(FACE)
    fitter.push(pictures()[0], face(0, Reason.PROFILE_VIEW, turned(70.0)))
    with pytest.raises(NoUsableFootageError):
        fitter.finish()
    fitter.push(pictures()[0], face(0, Reason.DUBBED, turned(46.0)))
    fitter.push(pictures()[0], face(0, Reason.DUBBED, turned(36.0)))
    assert fitter.finish().num_frames == 1


def test_less_turned_frames_are_preferred():
    held = fitting_frames.HeldFrames()
    held.push(pictures()[0], face(0, Reason.DUBBED, turned(40.0)))
    assert len(held.frames) == 1
    held.push(pictures()[0], face(7))
    assert [_which(placed.landmarks) for placed in held.frames] == [7]


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
    moved = np.zeros((3, 40, 3))
    moved[..., 1] = np.array([3.0, 0.5, 0.0])[:, None]
    assert best_frames(moved, rotation).tolist() == [1, 0, 2]


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


@pytest.fixture(scope="module")
def layout():
    model = default_model()
    return uv_map(model.uv, model.uv_triangles, model.triangles, SIDE, SIDE)


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """A smooth pattern of three waves."""
    v, u = np.meshgrid(*[(np.arange(SIDE) + 0.5) / SIDE] * 2, indexing="ij")
    return np.stack([127 + 100 * np.sin(9 * u), 127 + 100 * np.cos(8 * v), 127 + 100 * np.sin(6 * (u + v))], -1).astype(np.float32)


def seen_from(degrees: float, size: int = 280) -> np.ndarray:
    """Return the mean face turned by so many degrees: pixels and depth."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    head = default_model().mean_shape @ rotation.T
    middle = np.array([0.5 * size, 0.6 * size])
    return np.concatenate([0.85 * head[:, :2] + middle, head[:, 2:]], 1)


def draw(colours: np.ndarray, points: np.ndarray, layout: UvMap, height: int, width: int) -> FacePicture:
    """Return the textured mesh as the camera sees it: colours [H, W, 3], 0..255; points [V, 3], pixels and depth."""
    fragments = rasterise(points[None, :, :2], points[None, :, 2], layout.triangles, height, width, cull="back")
    uv = interpolate(fragments, layout.uv[None], layout.corners)[0]
    covered = fragments.covered[0]
    picture = np.zeros((height, width, 3), np.float32)
    picture[covered] = sample_texture(colours, uv[covered])
    return FacePicture(picture, covered)


def test_texture_from_three_views(layout, painted) -> None:
    """A painted face is recovered from three views and drawn in a fourth."""
    views = [seen_from(degrees) for degrees in (-35.0, 0.0, 35.0)]
    frames = [draw(painted, view, layout, 280, 280).picture.astype(np.uint8) for view in views]
    parts = [unwrap(frame, view, layout) for frame, view in zip(frames, views, strict=True)]
    merged = merge(parts)
    surface = layout.fragments.covered[0]
    assert (merged.weight[surface] > 0).mean() > 0.97
    well_seen = merged.weight > 0.3
    assert well_seen[surface].mean() > 0.9
    assert np.percentile(np.abs(merged.colours - painted)[well_seen], 95) < 8.0
    new = seen_from(18.0)
    wanted = draw(painted, new, layout, 280, 280)
    again = draw(fill(merged), new, layout, 280, 280)
    np.testing.assert_array_equal(again.covered, wanted.covered)
    assert np.percentile(np.abs(again.picture - wanted.picture)[wanted.covered], 95) < 8.0


def test_hidden_side_has_no_weight(layout, painted) -> None:
    """The side that a frame does not show has no weight."""
    view = seen_from(50.0)
    texture = unwrap(draw(painted, view, layout, 280, 280).picture.astype(np.uint8), view, layout)
    left, right = texture.weight[30:60, : SIDE // 3], texture.weight[30:60, -SIDE // 3 :]
    surface = layout.fragments.covered[0]
    shares = sorted([(left[surface[30:60, : SIDE // 3]] > 0).mean(), (right[surface[30:60, -SIDE // 3 :]] > 0).mean()])
    assert shares[0] < 0.35
    assert shares[1] > 0.95
    assert not texture.colours[texture.weight == 0].any()


def test_what_lies_beyond_the_frame_is_not_seen(layout) -> None:
    view = seen_from(0.0)
    view[:, 0] -= 140.0  # half the face to the left of the frame
    texture = unwrap(np.full((280, 280, 3), 90, np.uint8), view, layout)
    share = (texture.weight > 0)[layout.fragments.covered[0]].mean()
    assert 0.4 < share < 0.6
    assert (texture.colours[texture.weight > 0] == 90).all()


def test_merge_is_weighted_median() -> None:
    """The merge is a weighted median and ignores pixels that were not seen."""

    def texture(colour: float, weight: float) -> Texture:
        return Texture(np.full((1, 1, 3), colour, np.float32), np.full((1, 1), weight, np.float32))

    assert merge([texture(10, 1), texture(20, 1), texture(250, 1)]).colours[0, 0, 0] == 20
    assert merge([texture(10, 1), texture(20, 1), texture(250, 3)]).colours[0, 0, 0] == 250
    assert merge([texture(0, 0), texture(30, 0.1), texture(0, 0)]).colours[0, 0, 0] == 30
    unseen = merge([texture(0, 0), texture(0, 0)])
    assert (unseen.colours[0, 0, 0], unseen.weight[0, 0]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="no texture"):
        merge([])


def test_filling_keeps_seen_texels(painted) -> None:
    """Filling keeps the texels that were seen and takes the rest from around them."""
    weight = np.ones((SIDE, SIDE), np.float32)
    weight[40:47, 20:31] = 0
    weight[:, 90:] = 0
    filled = fill(Texture(np.where(weight[..., None] > 0, painted, np.float32(0)), weight))
    np.testing.assert_array_equal(filled[weight > 0], painted[weight > 0])
    assert np.abs(filled - painted)[40:47, 20:31].max() < 45
    assert filled[:, 90:].min() > 10
    assert not fill(Texture(np.zeros((3, 5, 3), np.float32), np.zeros((3, 5), np.float32))).any()


def test_real_face_unwraps_consistently(clips) -> None:
    """A real face unwrapped over a second looks like itself in another frame."""
    model = default_model()
    skin = np.ones(len(model.triangles), bool)
    skin[np.concatenate([model.regions["eyes"], model.regions["mouth_interior"]])] = False
    layout = uv_map(model.uv, model.uv_triangles[skin], model.triangles[skin], 256, 256)
    networks = Networks()
    try:
        tracker = FaceTracker(networks, TrackOptions(half_width=0))
        with av.open(str(clips.path("video/vr_face5.mp4"))) as container:
            frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(25), container.decode(video=0), strict=False)]
        points = [found.faces[0].landmarks[:468] for frame in frames for found in tracker.push(frame)]
    finally:
        networks.close()
    parts = [unwrap(frames[place], points[place], layout) for place in range(0, 20, 4)]
    merged = merge(parts)
    drawn = draw(fill(merged), points[24], layout, *frames[24].shape[:2])
    error = (drawn.picture - frames[24])[drawn.covered]
    assert drawn.covered.mean() > 0.05
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 27.0
