"""A person drawn in the render box from wanted mouth landmarks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.crops import HeadPose, head_to_box
from services.common.face.identity import FaceIdentity
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.landmarks import LIPS_INNER, MOUTH_AREA, mouth_opening, shut_lips
from services.common.geometry.default_model import default_model
from services.common.geometry.lighting import ambient
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.common.geometry.rotations import matrix_from_euler

MODEL = default_model()
MOUTH = list(MOUTH_AREA)


def identity(**changed: object) -> FaceIdentity:
    random = np.random.default_rng(3)
    person = FaceIdentity(
        model=MODEL.name,
        model_digest=MODEL.digest,
        identity=random.normal(0.0, 0.5, MODEL.num_identity).astype(np.float32),
        offset=np.zeros((MODEL.num_vertices, 3), np.float32),
        albedo=random.normal(0.0, 0.5, MODEL.num_albedo).astype(np.float32),
        light=ambient(),
        texture=np.full((32, 32, 3), 150, np.uint8),
        seen=np.full((32, 32), 255, np.uint8),
        num_frames=1,
        landmark_error=0.0,
        photometric_error=0.0,
    )
    return dataclasses.replace(person, **changed)  # type: ignore[arg-type]


def pose(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, scale: float = 1.0) -> HeadPose:
    """`roll` turns the picture, after the head's own turn."""
    turned, head = (np.asarray(matrix_from_euler(np.radians(angles))) for angles in ([0.0, 0.0, roll], [pitch, yaw, 0.0]))
    rotation = turned @ head
    return HeadPose(scale, rotation, np.array([300.0, 200.0, 0.0]))


DRAWING = IdentityDrawing(identity(), MODEL)
OPENER = int(np.argmax([np.ptp(MODEL.expression_basis[[13, 14], 1, k]) for k in range(MODEL.num_expression)]))


def opened(amount: float) -> np.ndarray:
    coefficients = np.zeros(MODEL.num_expression)
    gap = MODEL.expression_basis[14, 1, OPENER] - MODEL.expression_basis[13, 1, OPENER]
    coefficients[OPENER] = amount * np.sign(gap)
    return coefficients


@pytest.mark.parametrize("amount", [0.0, 1.0, 3.0])
def test_the_drawn_mouth_is_where_it_was_wanted(amount: float) -> None:
    wanted = DRAWING.shape_of(opened(amount))[MOUTH]
    found = DRAWING.shape_of(DRAWING.expression_of(wanted))[MOUTH]
    assert np.linalg.norm(found - wanted, axis=1).mean() < 0.05


@pytest.mark.parametrize("detailed", [False, True])
def test_what_is_covered_is_never_black_and_the_open_mouth_always_is(detailed: bool) -> None:
    dark = IdentityDrawing(identity(light=ambient((1e-4, 1e-4, 1e-4))), MODEL)
    mouth = DRAWING.shape_of(opened(4.0))[MOUTH]
    assert mouth_opening(mouth) > 12.0
    picture, bright = (each.draw(mouth, pose(), detailed=detailed) for each in (dark, DRAWING))
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture.any(-1), bright.any(-1))
    x, y = np.rint(head_to_box(mouth[20:40], pose()).mean(0)).astype(int)
    assert not picture[y - 2 : y + 3, x - 2 : x + 3].any()
    assert 0.3 < picture.any(-1).mean() < 0.9


def test_a_shut_mouth_hides_nearly_all_of_its_inside() -> None:
    mouth = DRAWING.shape_of(opened(4.0))[MOUTH]
    drawn = [DRAWING.draw(each, pose(), detailed=False).any(-1) for each in (mouth, shut_lips(mouth.astype(np.float32)))]
    lips = np.rint(head_to_box(DRAWING.shape_of(opened(4.0))[list(LIPS_INNER)], pose())).astype(int)
    (left, top), (right, bottom) = lips.min(0), lips.max(0)
    holes = [np.count_nonzero(~np.asarray(each)[top:bottom, left:right]) for each in drawn]
    assert holes[0] > 5 * holes[1]


def test_scale_roll_and_place_do_not_show_in_the_box() -> None:
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
    with pytest.raises(InvalidRequest, match="no albedo"):
        IdentityDrawing(identity(), bare)


def test_no_detail_is_drawn_where_there_is_none() -> None:
    plain = IdentityDrawing(identity(texture=np.zeros((0, 0, 3), np.uint8), seen=np.zeros((0, 0), np.uint8)), MODEL)
    assert not plain.has_detail
    mouth = plain.shape_of(opened(0.0))[MOUTH]
    assert plain.draw(mouth, pose(), detailed=False).any()
    with pytest.raises(InvalidRequest, match="detailed albedo"):
        plain.draw(mouth, pose(), detailed=True)


@pytest.mark.parametrize("mouth", [np.zeros((40, 3)), np.full((59, 3), np.nan)])
def test_landmarks_that_cannot_be_used_are_refused(mouth: np.ndarray) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DRAWING.expression_of(mouth)
    assert caught.value.field == "mouth_landmarks"
