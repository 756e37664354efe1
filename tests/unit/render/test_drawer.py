from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float32, UInt8
from services.render.drawer import without_dots

SIDE = 160


def _waves(across: int, down: int) -> Float32:
    """Return cosines of some periods, pixels, along rows and columns; 0: no change that way. float32 [SIDE, SIDE, 3], -10 to 10."""
    along = [np.cos(2.0 * np.pi * np.arange(SIDE) / period) if period else np.ones(SIDE) for period in (down, across)]
    return np.repeat(10.0 * np.outer(*along)[..., None], 3, axis=2).astype(np.float32)


def _base() -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def _drawn(face: Float32) -> Float32:
    """Return a face after the filter, drawn from a base of noise."""
    base = _base()
    return base + without_dots(base, face - base)


@pytest.mark.parametrize(("across", "down"), [(2, 0), (0, 2), (2, 2)])
def test_patterns_of_two_pixels_vanish(across: int, down: int) -> None:
    assert np.allclose(_drawn(100.0 + _waves(across, down)), 100.0, atol=1e-3)


@pytest.mark.parametrize(("period", "passed"), [(3, 0.763), (4, 0.969), (8, 1.0), (40, 1.0)])
def test_wider_structures_stay(period: int, passed: float) -> None:
    wave = _waves(period, 0)
    inside = (slice(16, -16), slice(16, -16))
    assert np.allclose(_drawn(100.0 + wave)[inside], (100.0 + passed * wave)[inside], atol=0.02)
