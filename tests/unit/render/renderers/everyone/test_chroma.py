from __future__ import annotations

import cv2
import numpy as np

from services.common.array_types import Float32
from services.render.renderers.everyone.chroma import with_smooth_chroma


def _luma(face: Float32) -> Float32:
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.float32)


def test_the_luma_stays() -> None:
    face = np.random.default_rng(1).uniform(0.0, 255.0, (160, 160, 3)).astype(np.float32)
    assert np.allclose(_luma(with_smooth_chroma(face)), _luma(face), atol=0.01)


def test_a_green_line_three_pixels_wide_on_grey_fades() -> None:
    face = np.full((160, 160, 3), 100.0, np.float32)
    face[80:83] += np.array([-20.0, 20.0, -20.0], np.float32)
    cast = np.ptp(with_smooth_chroma(face), axis=-1).max(axis=1)
    assert np.ptp(face, axis=-1).max() == 40.0
    assert cast.max() < 25.0
    assert cast[:72].max() < 0.1


def test_red_lips_on_skin_keep_their_colour() -> None:
    face = np.full((160, 160, 3), (190.0, 150.0, 120.0), np.float32)
    face[60:80] = (160.0, 70.0, 75.0)
    assert np.allclose(with_smooth_chroma(face)[70], face[70], atol=0.5)
    assert np.allclose(with_smooth_chroma(face)[40], face[40], atol=0.5)
