from __future__ import annotations

import numpy as np

from services.motion.basis import fit_basis, point_weights
from tests.unit.motion.synthesised import mouths


def _offsets(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = mouths(rng.uniform(0, 10, 200).astype(np.float32), rng.uniform(-3, 3, 200).astype(np.float32))
    return np.asarray(frames - frames.mean(0), np.float32)


def test_two_kinds_of_motion_need_two_coefficients() -> None:
    offsets = _offsets(0)
    basis = fit_basis([offsets], 2)
    np.testing.assert_allclose(basis.reconstruct(basis.project(offsets)), offsets, atol=1e-3)


def test_projection_undoes_reconstruction() -> None:
    basis = fit_basis([_offsets(0), _offsets(1)], 2)
    coefficients = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(basis.project(basis.reconstruct(coefficients)), coefficients, atol=1e-4)


def test_speakers_weigh_equally() -> None:
    """A speaker counts the same whatever the number of frames."""
    one, other = _offsets(0), _offsets(1)
    many = fit_basis([np.concatenate([one] * 5), other], 1)
    few = fit_basis([one, other], 1)
    for basis in (many, few):
        assert basis.components.shape == (1, 59, 3)
    kept_many, kept_few = (basis.reconstruct(basis.project(one)) for basis in (many, few))
    np.testing.assert_allclose(kept_many, kept_few, atol=1e-3)


def test_lips_and_plane_weigh_more() -> None:
    """Lips weigh more than jaw and picture plane more than depth."""
    weights = point_weights()
    assert weights[0, 0] > weights[-1, 0] > weights[-1, 2] > 0
