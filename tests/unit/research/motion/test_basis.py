"""Tests of the landmark basis of training clips."""

from __future__ import annotations

import numpy as np

from research.motion.basis import fit_basis
from tests.unit.motion.test_basis import offsets_of


def test_two_kinds_of_motion_need_two_coefficients() -> None:
    offsets = offsets_of(0)
    basis = fit_basis([offsets], 2)
    np.testing.assert_allclose(basis.reconstruct(basis.project(offsets)), offsets, atol=1e-3)


def test_speakers_weigh_equally() -> None:
    """A speaker counts the same whatever the number of frames."""
    one, other = offsets_of(0), offsets_of(1)
    many = fit_basis([np.concatenate([one] * 5), other], 1)
    few = fit_basis([one, other], 1)
    for basis in (many, few):
        assert basis.components.shape == (1, 59, 3)
    kept_many, kept_few = (basis.reconstruct(basis.project(one)) for basis in (many, few))
    np.testing.assert_allclose(kept_many, kept_few, atol=1e-3)
