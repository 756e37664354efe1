"""Render boxes that are cut from the footage."""

from __future__ import annotations

import numpy as np

from gateway.pipeline.face_records import cut_box
from services.common.face.crops import BOX_ORIGIN, HeadPose


def test_the_render_box_of_an_upright_head_is_a_plain_cut() -> None:
    frame = np.random.default_rng(1).integers(0, 255, (300, 320, 3)).astype(np.uint8)
    pose = HeadPose(1.0, np.eye(3), np.array([128.0 + 20, 160.0 + 10, 0.0]))
    x, y = BOX_ORIGIN
    np.testing.assert_array_equal(cut_box(frame, pose), frame[y + 10 : y + 170, x + 20 : x + 180])
