"""Tests of drawn faces: albedo times shading through a camera, the row of pictures of a fitted face, and a drawn render box."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, crop_from_frame, head_template, head_to_box
from services.common.face.drawing import (
    FaceMesh,
    IdentityDrawing,
    camera_in_crop,
    draw_detailed_face,
    draw_face,
    fitting_row,
    lip_pictures,
)
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import LIPS_INNER, MOUTH_AREA, mouth_opening, part_lips, shut_lips
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import ambient
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.geometry.rotations import matrix_from_euler
from tests.refusals import raised
from tests.unit.common.face.people import mean_person

MODEL = default_model()
MESH = FaceMesh.of(MODEL)
SHAPE = MODEL.mean_shape.astype(np.float64)
CAMERA = WeakPerspective(np.float64(1.0), np.eye(3), np.array([128.0, 160.0, 0.0]))
SIZE = (256, 256)
POSE = HeadPose(1.7, matrix_from_euler(np.radians([5.0, -12.0, 20.0])), np.array([300.0, 280.0, 0.0]))
MOUTH = list(MOUTH_AREA)
OPENER = int(np.argmax([np.ptp(MODEL.expression_basis[[13, 14], 1, k]) for k in range(MODEL.num_expression)]))


def test_ambient_light_shows_albedo():
    """Under ambient light, a face has the colour of its albedo."""
    albedo = np.broadcast_to([0.8, 0.6, 0.4], SHAPE.shape)
    face = draw_face(MESH, SHAPE, CAMERA, albedo, 0.5 * ambient(), SIZE)
    assert np.abs(face.picture[face.covered] - [102.0, 76.5, 51.0]).max() < 0.01
    assert not face.picture[~face.covered].any()
    assert 0.3 < face.covered.mean() < 0.7


def test_light_from_the_right_brightens_the_right():
    light = ambient()
    light[3] = 1.0  # along x
    face = draw_face(MESH, SHAPE, CAMERA, np.full(SHAPE.shape, 0.4), light, SIZE)
    left, right = (np.where(face.covered, face.picture[..., 0], np.nan)[100:130, part] for part in (slice(60, 80), slice(176, 196)))
    assert np.nanmean(right) > np.nanmean(left) + 20.0


def test_uniform_texture_equals_albedo():
    """A texture of one colour draws as that albedo."""
    texture = np.full((64, 64, 3), 128, np.uint8)
    detailed = draw_detailed_face(MESH, SHAPE, CAMERA, texture, ambient(), SIZE)
    plain = draw_face(MESH, SHAPE, CAMERA, np.full(SHAPE.shape, 128.0 / 255.0), ambient(), SIZE)
    assert np.array_equal(detailed.covered, plain.covered)
    assert np.abs(detailed.picture - plain.picture).max() < 0.01


def test_the_open_mouth_has_no_skin():
    with_mouth = FaceMesh.of(MODEL, without=())
    opened = MODEL.shape(np.zeros(20), np.eye(64)[0] * 3.0)
    if np.ptp(opened[[13, 14], 1]) < 5.0:
        opened = MODEL.shape(np.zeros(20), np.eye(64)[0] * -3.0)
    grey = np.full(SHAPE.shape, 0.5)
    whole, hollow = (draw_face(mesh, opened, CAMERA, grey, ambient(), SIZE).covered for mesh in (with_mouth, MESH))
    assert (whole & ~hollow).sum() > 50
    assert not (hollow & ~whole).any()


def test_the_layout_is_made_once():
    assert MESH.layout(32) is MESH.layout(32)
    assert MESH.layout(64).size == (64, 64)


def test_crop_camera_matches_crop():
    """The camera in the crop sees what the crop shows."""
    affine = crop_from_frame(POSE)
    in_frame = POSE.scale * MODEL.mean_shape @ POSE.rotation.T + POSE.translation
    in_crop = camera_in_crop(POSE, affine).project(MODEL.mean_shape.astype(np.float64))
    assert in_crop[:, :2] == pytest.approx(in_frame[:, :2] @ affine[:, :2].T + affine[:, 2], abs=1e-3)


def test_row_shows_mesh_and_albedos():
    """A row shows the face the mesh and both albedos."""
    identity = mean_person(texture=np.full((32, 32, 3), [200, 100, 50], np.uint8))
    picture = np.full((540, 640, 3), 90, np.uint8)
    row = fitting_row(picture, POSE, np.zeros(64, np.float32), identity, FaceMesh.of(MODEL))
    assert row.shape == (256, 1280, 3)
    crop, mesh, plain, laid, alone = np.split(row, 5, axis=1)
    assert (crop == 90).all()
    assert (mesh[..., 1].astype(int) - mesh[..., 0] > 60).sum() > 1000
    assert (plain != crop).any(-1).mean() > 0.2
    face = alone.any(-1)
    assert np.array_equal(laid[face], alone[face])
    assert np.array_equal(laid[~face], crop[~face])
    assert alone[150, 128] == pytest.approx([200, 100, 50], abs=1)


def identity(**changed: object) -> FaceIdentity:
    random = np.random.default_rng(3)
    person = mean_person(
        identity=random.normal(0.0, 0.5, MODEL.num_identity).astype(np.float32),
        albedo=random.normal(0.0, 0.5, MODEL.num_albedo).astype(np.float32),
    )
    return dataclasses.replace(person, **changed)  # type: ignore[arg-type]


def pose(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, scale: float = 1.0) -> HeadPose:
    """`roll` turns the picture, after the head's own turn."""
    turned, head = (np.asarray(matrix_from_euler(np.radians(angles))) for angles in ([0.0, 0.0, roll], [pitch, yaw, 0.0]))
    rotation = turned @ head
    return HeadPose(scale, rotation, np.array([300.0, 200.0, 0.0]))


DRAWING = IdentityDrawing(identity(), MODEL)


def opened(amount: float) -> np.ndarray:
    coefficients = np.zeros(MODEL.num_expression)
    gap = MODEL.expression_basis[14, 1, OPENER] - MODEL.expression_basis[13, 1, OPENER]
    coefficients[OPENER] = amount * np.sign(gap)
    return coefficients


@pytest.mark.parametrize("amount", [0.0, 1.0, 3.0])
def test_the_drawn_mouth_is_where_it_was_wanted(amount: float) -> None:
    target = DRAWING.shape_of(opened(amount))[MOUTH]
    found = DRAWING.shape_of(DRAWING.expression_of(target))[MOUTH]
    assert np.linalg.norm(found - target, axis=1).mean() < 0.05


@pytest.mark.parametrize("detailed", [False, True])
def test_covered_never_black_mouth_always(detailed: bool) -> None:
    """Covered parts are never black, and the open mouth always is."""
    dark = IdentityDrawing(identity(light=1e-4 * ambient()), MODEL)
    mouth = DRAWING.shape_of(opened(4.0))[MOUTH]
    assert mouth_opening(mouth) > 12.0
    picture, bright = (each.draw(mouth, pose(), detailed=detailed) for each in (dark, DRAWING))
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture.any(-1), bright.any(-1))
    x, y = np.rint(head_to_box(mouth[20:40], pose()).mean(0)).astype(int)
    assert not picture[y - 2 : y + 3, x - 2 : x + 3].any()
    assert 0.3 < picture.any(-1).mean() < 0.9


def test_shut_mouth_hides_inside() -> None:
    """A shut mouth hides nearly all of its inside."""
    mouth = DRAWING.shape_of(opened(4.0))[MOUTH]
    drawn = [DRAWING.draw(each, pose(), detailed=False).any(-1) for each in (mouth, shut_lips(mouth.astype(np.float32)))]
    lips = np.rint(head_to_box(DRAWING.shape_of(opened(4.0))[list(LIPS_INNER)], pose())).astype(int)
    (left, top), (right, bottom) = lips.min(0), lips.max(0)
    holes = [np.count_nonzero(~np.asarray(each)[top:bottom, left:right]) for each in drawn]
    assert holes[0] > 5 * holes[1]


def test_box_removes_similarity() -> None:
    """Scale roll and place do not show in the box."""
    mouth = DRAWING.shape_of(opened(1.0))[MOUTH]
    still = DRAWING.draw(mouth, pose(yaw=8.0), detailed=True).astype(int)
    moved = DRAWING.draw(mouth, pose(yaw=8.0, roll=20.0, scale=2.3), detailed=True).astype(int)
    turned = DRAWING.draw(mouth, pose(yaw=-8.0), detailed=True).astype(int)
    assert np.abs(still - moved).mean() < 1.0
    assert np.abs(still - turned).mean() > 3.0


def test_the_same_frame_gives_the_same_bytes() -> None:
    mouth = DRAWING.shape_of(opened(2.0))[MOUTH].astype(np.float32)
    again = IdentityDrawing(identity(), MODEL)
    assert DRAWING.draw(mouth, pose(), detailed=True).tobytes() == again.draw(mouth, pose(), detailed=True).tobytes()


@pytest.mark.skipif(not is_installed(), reason="pytorch3d is not installed (it is not on PyPI)")
@pytest.mark.parametrize("detailed", [False, True])
def test_pytorch3d_draws_the_same_picture(detailed: bool) -> None:
    other = IdentityDrawing(identity(), MODEL, backend="pytorch3d")
    for amount, yaw in ((0.0, 0.0), (3.0, -20.0)):
        mouth = DRAWING.shape_of(opened(amount))[MOUTH]
        ours, theirs = (each.draw(mouth, pose(yaw=yaw), detailed=detailed).astype(int) for each in (DRAWING, other))
        both = ours.any(-1) & theirs.any(-1)
        # Only at the outline may one rasteriser cover a pixel that the other leaves out.
        assert (ours.any(-1) != theirs.any(-1)).mean() < 0.001
        assert np.abs(ours - theirs)[both].max() <= 1


def test_a_model_without_albedo_is_refused() -> None:
    bare = dataclasses.replace(MODEL, albedo_mean=None)
    with pytest.raises(InvalidRequestError, match="no albedo"):
        IdentityDrawing(identity(), bare)


def test_no_detail_is_drawn_where_there_is_none() -> None:
    plain = IdentityDrawing(identity(texture=np.zeros((0, 0, 3), np.uint8), seen=np.zeros((0, 0), np.uint8)), MODEL)
    assert not plain.has_detail
    mouth = plain.shape_of(opened(0.0))[MOUTH]
    assert plain.draw(mouth, pose(), detailed=False).any()
    with pytest.raises(InvalidRequestError, match="detailed albedo"):
        plain.draw(mouth, pose(), detailed=True)


@pytest.mark.parametrize("mouth", [np.zeros((40, 3)), np.full((59, 3), np.nan)])
def test_landmarks_that_cannot_be_used_are_refused(mouth: np.ndarray) -> None:
    with raised(InvalidRequestError, field="mouth_landmarks"):
        DRAWING.expression_of(mouth)


def box_landmarks(further_px: float) -> Float32:
    """Landmarks of the mean head whose lips are further apart by so many head-space pixels, box pixels."""
    gaps = np.tile(np.float32([0.0, further_px, 0.0]), (9, 1))
    return head_to_box(part_lips(head_template()[list(MOUTH_AREA)], gaps), HeadPose(1.0, np.eye(3), np.zeros(3)))


def test_inside_grows_with_opening() -> None:
    """The inside of the mouth grows with the opening."""
    shut, wide = (lip_pictures(box_landmarks(further_px)) for further_px in (0.0, 16.0))
    assert wide[..., 1].sum() > shut[..., 1].sum() + 255 * 200
    assert (wide[..., 1] <= wide[..., 0]).mean() > 0.99


def test_far_landmarks_are_drawn() -> None:
    """Landmarks far outside the box are drawn without fault."""
    points = np.full((59, 2), 1e9, np.float32)
    assert not lip_pictures(points).any()


def test_larger_box_scales_lips() -> None:
    """In a larger box, the lips are larger by the same factor."""
    points = box_landmarks(16.0)
    small, large = lip_pictures(points), lip_pictures(2.0 * points, 320)
    assert large.shape == (320, 320, 2)
    assert np.abs(large.astype(int).reshape(160, 2, 160, 2, 2).mean(axis=(1, 3)) - small).mean() < 2.0
