from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.crops import HeadPose, head_template, head_to_box
from services.common.face.landmarks import MOUTH_AREA, part_lips
from services.common.face.lip_pictures import lip_pictures


def box_landmarks(further_px: float) -> Float32:
    """Landmarks of the mean head whose lips are further apart by so many head-space pixels, box pixels."""
    gaps = np.tile(np.float32([0.0, further_px, 0.0]), (9, 1))
    return head_to_box(part_lips(head_template()[list(MOUTH_AREA)], gaps), HeadPose(1.0, np.eye(3), np.zeros(3)))


def test_the_inside_of_the_mouth_grows_with_the_opening() -> None:
    shut, wide = (lip_pictures(box_landmarks(further_px)) for further_px in (0.0, 16.0))
    assert wide[..., 1].sum() > shut[..., 1].sum() + 255 * 200
    assert (wide[..., 1] <= wide[..., 0]).mean() > 0.99


def test_landmarks_far_outside_the_box_are_drawn_without_fault() -> None:
    points = np.full((59, 2), 1e9, np.float32)
    assert not lip_pictures(points).any()


def test_in_a_larger_box_the_lips_are_as_much_larger() -> None:
    points = box_landmarks(16.0)
    small, large = lip_pictures(points), lip_pictures(2.0 * points, 320)
    assert large.shape == (320, 320, 2)
    assert np.abs(large.astype(int).reshape(160, 2, 160, 2, 2).mean(axis=(1, 3)) - small).mean() < 2.0
