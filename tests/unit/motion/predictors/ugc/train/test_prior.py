"""The dominance prior."""

from __future__ import annotations

import numpy as np

from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.train.prior import PriorConfig, fit_prior
from services.motion.train.basis import basis_of
from services.motion.train.clips import Clips


def test_the_prior_finds_what_a_phone_does(clips: Clips) -> None:
    prior = fit_prior(clips, basis_of(clips, 2), PriorConfig(strength=0.02, width=3))
    reach = np.abs(prior.weight[0].reshape(4, NUM_CONTENT, -1)).sum(axis=(0, 2))
    assert reach.argmax() == 1
