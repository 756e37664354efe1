from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32
from services.render.drawer import without_dots

SIDE = 160


def _waves(across: int, down: int) -> Float32:
    """Return cosines of some periods, pixels, along rows and columns; 0: no change that way. float32 [SIDE, SIDE, 3], -10 to 10."""
    along = [np.cos(2.0 * np.pi * np.arange(SIDE) / period) if period else np.ones(SIDE) for period in (down, across)]
    return np.repeat(10.0 * np.outer(*along)[..., None], 3, axis=2).astype(np.float32)


@pytest.mark.parametrize(("across", "down"), [(2, 0), (0, 2), (2, 2)])
def test_patterns_of_two_pixels_vanish(across: int, down: int) -> None:
    assert np.allclose(without_dots(100.0 + _waves(across, down)), 100.0, atol=1e-3)


@pytest.mark.parametrize(("period", "passed"), [(3, 0.763), (4, 0.969), (8, 1.0), (40, 1.0)])
def test_wider_structures_stay(period: int, passed: float) -> None:
    wave = _waves(period, 0)
    inside = (slice(16, -16), slice(16, -16))
    assert np.allclose(without_dots(100.0 + wave)[inside], (100.0 + passed * wave)[inside], atol=0.02)
