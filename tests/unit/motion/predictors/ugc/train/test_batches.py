"""Batches of windows."""

from __future__ import annotations

import numpy as np

from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.inputs import WINDOW
from services.motion.predictors.ugc.train.batches import BatchConfig, BatchSampler
from services.motion.train.basis import basis_of
from services.motion.train.clips import Clips


def test_batches_are_seeded_and_have_their_shapes(clips: Clips) -> None:
    basis = basis_of(clips, 3)
    sampler = BatchSampler(clips, basis, BatchConfig(batch_size=4))
    one, again = (sampler.draw(np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(one.content, again.content)
    assert one.content.shape == (4, WINDOW, 4, NUM_CONTENT)
    assert one.offsets.shape == (4, WINDOW, 59, 3)
    np.testing.assert_allclose(one.content[..., :40].sum(-1), 1.0, atol=1e-4)
