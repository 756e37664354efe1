"""Shutting eyes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.texture.portrait.eyelids import BROWS, LOWER_LIDS, UPPER_LIDS, Eye
from tests.unit.texture.people import LANDMARKS

POINTS = LANDMARKS[:, :2].astype(np.float64)
EYES = [Eye.of(POINTS, side) for side in (0, 1)]


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
