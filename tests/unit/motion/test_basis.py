from __future__ import annotations

import numpy as np

from research.motion.basis import fit_basis
from tests.unit.motion.synthesised import mouths


def offsets_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = mouths(rng.uniform(0, 10, 200).astype(np.float32), rng.uniform(-3, 3, 200).astype(np.float32))
    return np.asarray(frames - frames.mean(0), np.float32)


def test_projection_undoes_reconstruction() -> None:
    basis = fit_basis([offsets_of(0), offsets_of(1)], 2)
    coefficients = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(basis.project(basis.reconstruct(coefficients)), coefficients, atol=1e-4)
