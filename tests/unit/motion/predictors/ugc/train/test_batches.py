"""Batches of windows."""

from __future__ import annotations

import numpy as np
import torch

from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.inputs import WINDOW
from services.motion.predictors.ugc.train.batches import BatchConfig, BatchSampler
from services.motion.train.basis import basis_of
from services.motion.train.clips import TrainingClip, by_speaker


def test_batches_are_seeded_and_have_their_shapes(clips: list[TrainingClip]) -> None:
    basis = basis_of(clips, 3)
    sampler = BatchSampler(clips, basis, BatchConfig(batch_size=4))
    one, again = (sampler.draw(np.random.default_rng(1)) for _ in range(2))
    torch.testing.assert_close(one.content, again.content, rtol=0, atol=0)
    assert one.content.shape == (4, WINDOW, 4, NUM_CONTENT)
    assert one.offsets.shape == (4, WINDOW, 59, 3)
    np.testing.assert_allclose(one.content[..., :40].sum(-1).numpy(), 1.0, atol=1e-4)


def test_speakers_with_many_clips_are_not_drawn_in_proportion(clips: list[TrainingClip]) -> None:
    counts = {speaker: len(group) for speaker, group in by_speaker(clips).items()}
    assert counts == {"anna": 4, "ben": 2}
    sampler = BatchSampler(clips, basis_of(clips, 3), BatchConfig(speaker_exponent=0.0))
    np.testing.assert_allclose(sampler._probability, 0.5)
