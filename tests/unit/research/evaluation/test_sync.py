from __future__ import annotations

import numpy as np
import pytest

from research.evaluation.sync import mouths_on_grid
from services.common.face.crops import head_template
from services.common.face.landmarks import LIPS_INNER, MOUTH_AREA, mouth_opening


def meshes(openings: np.ndarray) -> np.ndarray:
    found = np.zeros((len(openings), 478, 3), np.float32)
    found[:, :468] = head_template() + np.array([128.0, 160.0, 0.0], np.float32)
    found[:, list(LIPS_INNER[10:]), 1] += openings[:, None]
    return found


def test_25_fps_mouths_stay() -> None:
    """Mouths at 25 frames a second stay where they are."""
    tracked = meshes(np.arange(6.0))
    first, mouths, usable = mouths_on_grid(tracked, np.arange(10, 16) / 25.0)
    assert first == 10
    assert mouths.shape == (6, 59, 3)
    assert usable.all()
    assert mouths[0] == pytest.approx(head_template()[list(MOUTH_AREA)], abs=1e-3)
    assert np.diff(mouth_opening(mouths)) == pytest.approx(np.diff(mouth_opening(tracked[:, list(MOUTH_AREA)])), abs=1e-3)


def test_other_rates_are_interpolated_in_time() -> None:
    seconds = np.arange(51) / 50.0
    first, mouths, _ = mouths_on_grid(meshes(seconds * 10.0), seconds)
    assert (first, len(mouths)) == (0, 26)
    steps = np.diff(mouth_opening(mouths))
    assert steps[5:] == pytest.approx(np.full(20, 0.4), abs=0.02)


def test_long_gap_unusable() -> None:
    """A long gap is not usable and a lost clip is empty."""
    tracked = meshes(np.zeros(20))
    tracked[5:12] = np.nan
    _, mouths, usable = mouths_on_grid(tracked, np.arange(20) / 25.0)
    assert len(mouths) == 20
    assert (~usable).sum() >= 7
    tracked[1:] = np.nan
    assert len(mouths_on_grid(tracked, np.arange(20) / 25.0)[1]) == 0
