"""Tests of a still picture whose head is turned to other poses and whose eyes shut."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.face.crops import HeadPose, fit_head_pose
from services.common.geometry.rotations import euler_from_matrix
from services.texture.portrait import (
    BROWS,
    EXACT_TURN_DEGREES,
    LOWER_LIDS,
    MAX_TURN_DEGREES,
    UPPER_LIDS,
    Eye,
    PortraitRotation,
    within_reach,
)
from tests.unit.texture.people import LANDMARKS, MODEL, POSE, SIZE, WHITE_OF_EYES, a_person, a_portrait, turned

POINTS = LANDMARKS[:, :2].astype(np.float64)
EYES = [Eye.of(POINTS, side) for side in (0, 1)]
PORTRAIT = a_portrait()
NOSE, CHEEK, FOREHEAD, CHIN = 1, 234, 10, 152


@given(side=st.integers(0, 1), closure=st.floats(0.0, 0.95), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_opening_undoes_shutting(side: int, closure: float, seed: int) -> None:
    left, top, right, bottom = EYES[side].box(3.0)
    points = np.random.default_rng(seed).uniform((left, top), (right, bottom), (200, 2))
    there = EYES[side].shut(points, closure)
    np.testing.assert_allclose(EYES[side].opened(there, closure), points, atol=2e-2)


@pytest.mark.parametrize("side", [0, 1])
def test_only_the_lids_move(side: int) -> None:
    eye = EYES[side]
    fixed = POINTS[[*BROWS[side], UPPER_LIDS[side][0], UPPER_LIDS[side][-1], 1, 152]]
    np.testing.assert_allclose(eye.shut(fixed, 1.0), fixed, atol=0.05)
    upper, lower = (POINTS[list(lids[side][1:-1])] for lids in (UPPER_LIDS, LOWER_LIDS))
    down, up = eye.shut(upper, 1.0) - upper, lower - eye.shut(lower, 1.0)
    assert (down[:, 1] > 0.0).all()
    assert down[:, 1].max() > 4.0 * up[:, 1].max()


def test_an_open_eye_is_left_alone() -> None:
    np.testing.assert_array_equal(EYES[0].opened(POINTS, 0.0), POINTS)


def test_an_eye_without_size_breaks_nothing() -> None:
    nowhere = Eye.of(np.zeros((478, 2)), 0)
    assert np.isfinite(nowhere.opened(np.zeros((4, 2)), 1.0)).all()


@cache
def rotation() -> PortraitRotation:
    return PortraitRotation(PORTRAIT, LANDMARKS, POSE, a_person(), MODEL)


def moved(
    pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, shift: tuple[float, float] = (0, 0), scale: float = 1
) -> HeadPose:
    return HeadPose(POSE.scale * scale, turned(pitch, yaw, roll), POSE.translation + np.array([*shift, 0.0]))


def shown(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the place in the portrait of the pixel nearest to a place."""
    x, y = np.rint(place[:2]).astype(int)
    return picture[y, x, :2].astype(float)


def test_in_its_own_pose_the_portrait_is_itself() -> None:
    same = rotation().turn(POSE)
    np.testing.assert_array_equal(same.picture, PORTRAIT)
    np.testing.assert_allclose(same.landmarks, LANDMARKS, atol=1e-3)


@pytest.mark.parametrize(
    "pose",
    [moved(yaw=9.0), moved(pitch=-8.0, yaw=5.0), moved(roll=7.0, shift=(6.0, -4.0), scale=1.08)],
    ids=["turn", "nod", "tilt"],
)
def test_the_landmarks_stand_in_the_wanted_pose(pose: HeadPose) -> None:
    found = fit_head_pose(rotation().turn(pose).landmarks)
    np.testing.assert_allclose(found.rotation, pose.rotation, atol=2e-3)
    np.testing.assert_allclose(found.translation[:2], pose.translation[:2], atol=0.1)
    assert found.scale == pytest.approx(pose.scale, rel=1e-3)


def test_similarity_moves_face_exactly() -> None:
    """Tilt place and size take the face along exactly."""
    answer = rotation().turn(moved(roll=6.0, shift=(5.0, 3.0), scale=1.05))
    for point in (NOSE, CHEEK, FOREHEAD, CHIN, 13, 33, 263):
        np.testing.assert_allclose(shown(answer.picture, answer.landmarks[point]), LANDMARKS[point, :2], atol=1.6)


def test_turn_moves_nose_most() -> None:
    """A turn moves the nose further than the cheeks."""
    answer = rotation().turn(moved(yaw=10.0))
    nose = LANDMARKS[NOSE, 0] - shown(answer.picture, LANDMARKS[NOSE])[0]
    cheek = LANDMARKS[CHEEK, 0] - shown(answer.picture, LANDMARKS[CHEEK])[0]
    assert nose > 2.0
    assert cheek < -2.0


@pytest.mark.parametrize(
    "pose", [moved(yaw=12.0), moved(yaw=-12.0), moved(pitch=12.0), moved(pitch=-12.0), moved(7, 7, 7, (5, -3), 1.03)]
)
def test_nothing_tears_and_nothing_folds(pose: HeadPose) -> None:
    picture = rotation().turn(pose).picture.astype(int)
    across, down = np.diff(picture[..., 0], axis=1), np.diff(picture[..., 1], axis=0)
    assert min(across.min(), down.min()) >= -1
    assert max(across.max(), down.max()) <= 6


@pytest.mark.parametrize("pose", [moved(yaw=12.0, shift=(9.0, 9.0)), moved(roll=10.0, scale=0.9)])
def test_the_border_stays(pose: HeadPose) -> None:
    picture = rotation().turn(pose).picture.astype(int)
    for border in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        np.testing.assert_allclose(picture[border], PORTRAIT[border].astype(int), atol=1)


def test_an_answer_depends_on_its_pose_alone() -> None:
    first = rotation().turn(moved(yaw=7.0), 0.4)
    rotation().turn(moved(pitch=5.0), 1.0)
    again = PortraitRotation(PORTRAIT, LANDMARKS, POSE, a_person(), MODEL).turn(moved(yaw=7.0), 0.4)
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.landmarks.tobytes() == again.landmarks.tobytes()


def test_large_turns_are_kept_within_reach() -> None:
    sizes = []
    for degrees in np.linspace(0.0, 60.0, 61):
        reached = within_reach(moved(pitch=0.6 * degrees, yaw=-0.8 * degrees, roll=9.0), POSE)
        pitch, yaw, roll = np.degrees(np.asarray(euler_from_matrix(reached.rotation)))
        assert roll == pytest.approx(9.0)
        sizes.append(float(np.hypot(pitch, yaw)))
        assert degrees < 1.0 or yaw / pitch == pytest.approx(-0.8 / 0.6)
        if degrees <= EXACT_TURN_DEGREES:
            assert sizes[-1] == pytest.approx(degrees)
    assert (np.diff(sizes) > 0).all()
    assert sizes[-1] <= MAX_TURN_DEGREES


@pytest.mark.parametrize("pose", [POSE, moved(yaw=8.0, pitch=-5.0)], ids=["still", "turned"])
def test_shut_eyes_show_hardly_anything_of_the_eye(pose: HeadPose) -> None:
    opened, half, shut = (rotation().turn(pose, blink) for blink in (0.0, 0.5, 1.0))
    seen = [float(answer.picture[..., 2].sum()) for answer in (opened, half, shut)]
    assert seen[0] > 100 * WHITE_OF_EYES
    assert 0.3 * seen[0] < seen[1] < 0.8 * seen[0]
    assert seen[2] < 0.2 * seen[0]  # the seam: a pixel of the seven that these eyes are high


def test_the_lids_of_shut_eyes_meet() -> None:
    opened, shut = (rotation().turn(POSE, blink).landmarks for blink in (0.0, 1.0))
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        before, after = (
            np.linalg.norm(points[list(upper[1:-1]), :2] - points[list(lower[1:-1]), :2], axis=1) for points in (opened, shut)
        )
        assert after.max() < 0.35 * before.max()
    brows = [70, 105, 300, 334, 152, 61]
    np.testing.assert_allclose(shut[brows], opened[brows], atol=1e-3)


def test_outside_face_changes_nothing() -> None:
    """A face outside the picture leaves it as it is."""
    away = HeadPose(POSE.scale, POSE.rotation, POSE.translation + np.array([4.0 * SIZE, 0.0, 0.0]))
    rotation = PortraitRotation(PORTRAIT, LANDMARKS + np.float32([4 * SIZE, 0, 0]), away, a_person(), MODEL)
    answer = rotation.turn(HeadPose(away.scale, turned(yaw=9.0), away.translation), 1.0)
    np.testing.assert_array_equal(answer.picture, PORTRAIT)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (2, 300)])
def test_a_narrow_picture_is_turned_in_the_end(size: tuple[int, int]) -> None:
    narrow = PortraitRotation(np.zeros((*size, 3), np.uint8), LANDMARKS, POSE, a_person(), MODEL)
    for pose in (moved(yaw=9.0), moved(shift=(900_000.0, -900_000.0)), moved(scale=500.0)):
        assert narrow.turn(pose, 1.0).picture.shape == (*size, 3)
