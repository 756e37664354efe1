"""Tests of the 216-point layout, and of mouths that are shut and opened.

The layout covers the parts of the face, and its lower part is a linear function of the wire's 59 points.
"""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.crops import head_template
from services.common.face.landmarks import (
    BROWS,
    CHEEKS,
    EYES,
    FACE_OVAL,
    JAW,
    JAW_LINE,
    LEFT_EYE_CORNERS,
    LEFT_EYE_LIDS,
    LIPS_INNER,
    LIPS_OUTER,
    LOWER_OF_MOUTH,
    MOUTH_AREA,
    NOSE,
    NOSE_BASE,
    NUM_DENSE_LIPS,
    NUM_LANDMARKS,
    NUM_LIPS,
    NUM_UPPER,
    RIGHT_EYE_CORNERS,
    RIGHT_EYE_LIDS,
    STABLE,
    UPPER,
    UPPER_CONTOUR,
    lip_gaps,
    lip_width,
    lower_face,
    mouth_opening,
    never_open,
    part_lips,
    pose_landmarks,
    shut_lips,
)

SHUT: Float32 = shut_lips(head_template()[list(MOUTH_AREA)])


def test_lip_distance_is_exact() -> None:
    """Shut lips touch, and parted lips are as far apart as requested."""
    assert mouth_opening(SHUT) < 1e-3
    gaps = np.random.default_rng(0).normal(0.0, 1.0, (9, 3)).astype(np.float32) + np.float32([0.0, 9.0, 0.0])
    parted = part_lips(SHUT, gaps)
    np.testing.assert_allclose(lip_gaps(parted), gaps, atol=1e-4)
    np.testing.assert_allclose(lip_width(parted), lip_width(SHUT))


def test_chin_follows_lip_ears_stay() -> None:
    """The chin follows the lower lip and the ears stay."""
    moved = part_lips(SHUT, np.tile(np.float32([0.0, 10.0, 0.0]), (9, 1)))[NUM_LIPS:] - SHUT[NUM_LIPS:]
    chin = int(np.argmax(SHUT[NUM_LIPS:, 1]))
    assert moved[chin, 1] == moved[:, 1].max() == np.float32(7.0)
    assert moved[:, 1].min() == 0.0


def test_rare_opening_is_no_open_mouth() -> None:
    """A person is never seen with an open mouth if hardly any frame shows one."""
    still = np.tile(SHUT, (100, 1, 1))
    opened = part_lips(SHUT, np.tile(np.float32([0.0, 10.0, 0.0]), (9, 1)))
    assert never_open(still)
    still[7] = opened
    assert never_open(still)
    still[[20, 40, 60]] = opened
    assert not never_open(still)


def head() -> np.ndarray:
    template = head_template()
    return np.concatenate([template, np.zeros((NUM_LANDMARKS - len(template), 3), np.float32)])


def test_the_layout_has_the_papers_number_of_points() -> None:
    assert NUM_UPPER + NUM_DENSE_LIPS + 2 * len(JAW) - 1 == 216


def test_upper_points_outside_mouth() -> None:
    """Upper points are different vertices outside of the mouth area."""
    assert len(set(UPPER)) == NUM_UPPER
    assert not set(UPPER) & set(MOUTH_AREA)
    assert max(UPPER) < 468


def test_contours_form_face_oval() -> None:
    """Both contours together are the oval of the face."""
    assert set(UPPER_CONTOUR) | set(JAW) == set(FACE_OVAL)
    assert not set(UPPER_CONTOUR) & set(JAW)


def test_each_part_lies_where_its_name_says() -> None:
    points = head()
    heights = [float(points[list(part), 1].mean()) for part in (BROWS, EYES, NOSE, JAW_LINE)]
    assert heights == sorted(heights)  # y points down
    assert points[JAW_LINE[0], 0] < points[152, 0] < points[JAW_LINE[-1], 0]


def test_right_half_mirrors_left_half() -> None:
    """Each part has every point once, and its points mirrored. The points of an upper lid lie above those of the lower lid."""
    points = head()
    lids = np.array((*RIGHT_EYE_LIDS, *LEFT_EYE_LIDS))
    eyes = (*lids.ravel(), *RIGHT_EYE_CORNERS, *LEFT_EYE_CORNERS)
    for part in (UPPER_CONTOUR, JAW, BROWS, EYES, NOSE, NOSE_BASE, CHEEKS, STABLE, FACE_OVAL, LIPS_OUTER, LIPS_INNER, eyes):
        found = points[list(part)]
        gaps = np.linalg.norm(found[:, None] * (-1, 1, 1) - found, axis=-1)
        assert gaps.min(axis=1).max() < 2.0
        assert len(set(part)) == len(part)
    assert (points[lids[:, 0], 1] < points[lids[:, 1], 1]).all()
    np.testing.assert_allclose(np.diff(points[lids, 0]), 0.0, atol=3.0)


def test_wire_landmarks_unchanged_in_lower() -> None:
    """The wire landmarks are in the lower part unchanged."""
    mouths = np.random.default_rng(0).normal(size=(4, 59, 3)).astype(np.float32)
    lower = lower_face(mouths)
    assert lower.shape == (4, NUM_DENSE_LIPS + 2 * len(JAW) - 1, 3)
    np.testing.assert_array_equal(lower[..., LOWER_OF_MOUTH.argmax(axis=0), :], mouths)


def test_added_points_are_midpoints() -> None:
    """Added points lie in the middle between two neighbours."""
    assert set(np.unique(LOWER_OF_MOUTH)) == {0.0, 0.5, 1.0}
    np.testing.assert_array_equal(LOWER_OF_MOUTH.sum(axis=1), 1.0)
    lower = lower_face(head()[list(MOUTH_AREA)])
    contour = lower[:40]
    np.testing.assert_allclose(contour[1::2], (contour[::2] + np.roll(contour[::2], -1, axis=0)) / 2.0, atol=1e-5)


def test_pose_landmarks_per_frame() -> None:
    """Pose landmarks of many frames are taken frame by frame."""
    frames = np.random.default_rng(1).normal(size=(3, NUM_LANDMARKS, 3)).astype(np.float32)
    np.testing.assert_array_equal(pose_landmarks(frames)[2], frames[2, list(UPPER)])
