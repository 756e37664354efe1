"""The losses on landmarks that several predictors share, with the batches of one of them."""

from __future__ import annotations

import numpy as np
import torch

from research.methods.everyone.motion import EveryoneBatchConfig, EveryoneBatchSampler, FilterConfig, fit_filter
from research.motion.basis import ExpressionSpace, committed_basis
from research.motion.clips import Clips
from research.motion.losses import LandmarkLoss, LandmarkLossWeights


def test_loss_grows_with_error(clips: Clips) -> None:
    """Loss is small for the truth and grows with the error."""
    space = ExpressionSpace.of(committed_basis())
    sampler = EveryoneBatchSampler(
        clips, space, fit_filter(clips, space, FilterConfig(), "states"), EveryoneBatchConfig(batch_size=4), "states"
    )
    batch = sampler.draw(np.random.default_rng(2)).on(torch.device("cpu"))
    truth = torch.from_numpy(space.expression.project(batch.offsets.numpy())) / batch.spread[:, None]
    loss = LandmarkLoss(space.expression, LandmarkLossWeights())
    perfect, off, still = loss(truth, batch), loss(truth + 0.5, batch), loss(torch.zeros_like(truth), batch)
    assert perfect.landmarks < 0.5 * off.landmarks
    assert perfect.total < off.total
    assert perfect.velocity < 0.5 * still.velocity
    assert perfect.correlation < 0.5 * still.correlation  # the width of these mouths never changes


def test_lips_that_stay_apart_on_a_bilabial_cost(clips: Clips) -> None:
    space = ExpressionSpace.of(committed_basis())
    sampler = EveryoneBatchSampler(
        clips, space, fit_filter(clips, space, FilterConfig(), "states"), EveryoneBatchConfig(batch_size=2), "states"
    )
    batch = sampler.draw(np.random.default_rng(2)).on(torch.device("cpu"))
    batch = batch._replace(closed=torch.ones_like(batch.closed), valid=torch.ones_like(batch.valid))
    loss = LandmarkLoss(space.expression, LandmarkLossWeights())
    still = torch.zeros((*batch.valid.shape, len(space.expression.typical_spread)))
    gap = loss.opening(batch.rest)
    shut, apart = (batch._replace(closed_opening=opening) for opening in (gap, gap - 5.0))
    assert float(loss(still, shut).closure) == 0.0
    assert float(loss(still, apart).closure) > 0.1
