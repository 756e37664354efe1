"""Tests of the training of `ugc`: the dominance prior, and batches of windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.methods.ugc.motion import PriorConfig, UgcBatchConfig, UgcBatchSampler, fit_prior
from research.motion.basis import basis_of
from research.motion.clips import Clips
from services.motion.features import NUM_CONTENT
from services.motion.predictors.ugc.predictor import WINDOW
from tests.unit.motion.made_clips import in_memory, made_clip

SHORT = PriorConfig(width=3)
"""A filter that is fitted in a tenth of the time."""


def test_batches_are_seeded_and_have_their_shapes(clips: Clips) -> None:
    basis = basis_of(clips, 3)
    sampler = UgcBatchSampler(clips, basis, fit_prior(clips, basis, SHORT), UgcBatchConfig(batch_size=4))
    one, again = (sampler.draw(np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(one.content, again.content)
    assert one.content.shape == (4, WINDOW, 4, NUM_CONTENT)
    assert one.offsets.shape == (4, WINDOW, 59, 3)
    np.testing.assert_allclose(one.content[..., :40].sum(-1), 1.0, atol=1e-4)
    assert not one.alone.any()


def test_narrow_corpus_with_windows() -> None:
    """Facts that hold in a narrow corpus alone come with its windows."""
    narrow = [replace(made_clip(index), apart="commands") for index in range(2)]
    clips = in_memory([*narrow, made_clip(2)])
    basis = basis_of(clips, 3)
    prior = fit_prior(clips, basis, SHORT)
    drawn = UgcBatchSampler(clips, basis, prior, UgcBatchConfig(batch_size=12)).draw(np.random.default_rng(1))
    mixed = [bool(window.any()) for window in drawn.alone]
    assert set(mixed) == {True, False}
    spread = prior.alone(clips[0]).std()
    np.testing.assert_allclose(drawn.alone[mixed].std(), spread, rtol=0.5)


def test_the_prior_finds_what_a_phone_does(clips: Clips) -> None:
    prior = fit_prior(clips, basis_of(clips, 2), PriorConfig(strength=0.02, width=3))
    reach = np.abs(prior.weight[0].reshape(4, NUM_CONTENT, -1)).sum(axis=(0, 2))
    assert reach.argmax() == 1
