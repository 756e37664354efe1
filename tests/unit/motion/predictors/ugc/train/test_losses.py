"""The losses."""

from __future__ import annotations

import numpy as np
import torch

from services.motion.predictors.ugc.train.batches import BatchConfig, BatchSampler
from services.motion.predictors.ugc.train.losses import LossWeights, UgcLoss
from services.motion.predictors.ugc.train.prior import PriorConfig, fit_prior
from services.motion.train.basis import basis_of
from services.motion.train.clips import Clips


def test_loss_is_nothing_for_the_truth_and_grows_with_the_error(clips: Clips) -> None:
    basis = basis_of(clips, 3)
    sampler = BatchSampler(clips, basis, fit_prior(clips, basis, PriorConfig()), BatchConfig(batch_size=4))
    batch = sampler.draw(np.random.default_rng(2)).on(torch.device("cpu"))
    truth = torch.from_numpy(basis.project(batch.offsets.numpy())) / batch.spread[:, None]
    loss = UgcLoss(basis, LossWeights())
    perfect, off = loss(truth, batch), loss(truth + 0.5, batch)
    assert perfect.landmarks < 0.05 * off.landmarks
    assert perfect.velocity < 0.05
    assert perfect.total < off.total
