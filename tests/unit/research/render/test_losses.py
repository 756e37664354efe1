"""Losses of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from research.render.losses import detail_loss, gradient_penalty
from services.render.losses import ComposedPictures


def test_gradient_penalty_unit_slopes() -> None:
    """The gradient penalty asks for slopes of length one."""
    direction = torch.randn(1, 3, 4, 4)
    direction /= direction.norm()
    real, made, shares = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.rand(2, 1, 1, 1)
    for length, expected in ((1.0, 0.0), (3.0, 4.0)):
        penalty = gradient_penalty(lambda x, k=length: (k * x * direction).sum(dim=(1, 2, 3)), real, made, shares)
        assert float(penalty) == pytest.approx(expected, abs=1e-4)


def test_detail_loss_compares_amount() -> None:
    """Detail loss asks for as much detail not for the same."""
    rows, columns = np.mgrid[:160, :160]
    checks = torch.from_numpy(((rows + columns) % 2).astype(np.float32) * 0.2 + 0.4).expand(1, 3, -1, -1)
    flat = torch.full((1, 3, 160, 160), 0.5)
    mask = torch.ones(1, 1, 160, 160)
    moved = torch.roll(checks, 1, dims=-1)
    # The Laplacian of the checks is 4 * 0.2 everywhere.
    assert float(detail_loss(ComposedPictures(flat, checks, mask, mask))) == pytest.approx(0.8, abs=1e-2)
    assert float(detail_loss(ComposedPictures(moved, checks, mask, mask))) == pytest.approx(0.0, abs=1e-5)
    left = mask.clone()
    left[..., 80:] = 0.0
    half = torch.where(left > 0, checks, flat)
    assert float(detail_loss(ComposedPictures(half, checks, left, left))) < 0.05
