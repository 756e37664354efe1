from __future__ import annotations

import numpy as np

from gateway.dub.render.backgrounds import rebased


def test_centred_poses_stay() -> None:
    """Poses about their own mean stay as they are."""
    about = np.array([0.1, -0.2, 0.0, 320.0, 240.0, 1.5])
    poses = about + np.random.default_rng(3).normal(0.0, 0.1, (20, 6))
    np.testing.assert_allclose(rebased(poses, about, about), poses, atol=1e-12)


def test_in_other_framing_angles_stay_and_places_scale() -> None:
    about = np.array([0.1, -0.2, 0.0, 320.0, 240.0, 1.5])
    target = np.array([0.0, 0.3, 0.1, 900.0, 500.0, 3.0])
    moved = about + np.array([[0.02, -0.03, 0.01, 12.0, -6.0, 0.15]])
    np.testing.assert_allclose(
        rebased(moved, about, target), target + np.array([[0.02, -0.03, 0.01, 24.0, -12.0, 0.3]]), atol=1e-12
    )
