"""Tests of the training of `everybody`: losses, windows, and the closed-form filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from research.methods.everybody.motion import (
    EverybodyLoss,
    EverybodyLossWeights,
    EverybodySampler,
    EverybodyTrainingConfig,
    EverybodyWindows,
    prepare,
    silent_row,
)
from research.motion.basis import ExpressionSpace, committed_basis
from research.motion.clips import Clips
from research.motion.ridge import Filter, RidgeFit
from services.motion.models import MotionModels
from services.motion.predictors.everybody.predictor import NUM_INPUTS, WINDOW, WINDOW_PAST, EverybodyModel
from tests.unit.motion.predictors.everybody.made import clip, fitted, predicted

CONFIG = EverybodyTrainingConfig(batch_size=5, noise=0.0, level=0.0)
SPACE = ExpressionSpace.of(committed_basis())
SILENCE = np.zeros(20, np.float32)


@pytest.fixture(scope="module")
def linear() -> Filter:
    return fitted([clip(seed) for seed in range(4)], 0.01)


def test_the_filter_finds_what_the_expression_follows(linear: Filter) -> None:
    other = clip(9)
    for k in range(2):
        assert np.corrcoef(predicted(linear, other)[:, k], other.expression[:, k])[0, 1] > 0.6
    weight = np.abs(linear.weight[0]).reshape(WINDOW, 4, NUM_INPUTS)
    assert np.unravel_index(weight.argmax(), weight.shape) == (WINDOW_PAST, 1, 3)


def test_seeded_neighbouring_pairs(clips: Clips, linear: Filter) -> None:
    """Pairs are neighbouring frames of a clip and seeded."""
    # No clip is of a narrow corpus, so no filter of a corpus is needed.
    sampler = EverybodySampler(clips, SPACE, SILENCE, RidgeFit(linear, {}), CONFIG)
    drawn = sampler.draw(np.random.default_rng(3))
    np.testing.assert_array_equal(drawn.window[:, 0, 1:], drawn.window[:, 1, :-1])
    np.testing.assert_array_equal(drawn.window, sampler.draw(np.random.default_rng(3)).window)
    every = [prepare(each, SPACE, SILENCE) for each in clips]
    for window, expression in zip(drawn.window, drawn.expression, strict=True):
        places = [
            (whole, frame)
            for whole in every
            for frame in range(len(whole.expression) - 1)
            if (whole.rows[frame : frame + WINDOW] == window[0]).all()
        ]
        ((whole, frame),) = places
        np.testing.assert_array_equal(expression, whole.expression[frame : frame + 2])


def test_silence_where_nobody_speaks(clips: Clips) -> None:
    """Silence is heard where no one speaks, or else where speech is least likely."""
    assert np.isfinite(silent_row(clips)).all()
    quiet = clips[0]
    speaking = quiet.features.speech_probability
    before = speaking.copy()
    try:
        speaking[7] = 0.0
        np.testing.assert_allclose(silent_row(clips), quiet.features.extra["identity_removed"][7].mean(axis=0), rtol=1e-5)
    finally:
        speaking[:] = before


def test_loss_zero_for_truth(models: MotionModels) -> None:
    """The loss is zero for the truth and grows with the mouth that moves."""
    basis = EverybodyModel.of(models).basis
    size = len(basis.typical_spread)
    loss = EverybodyLoss(basis, EverybodyLossWeights())
    truth = torch.randn(3, 2, size)
    batch = EverybodyWindows(torch.zeros(3, 2, 1), truth, torch.from_numpy(basis.typical_spread.copy()).expand(3, -1))
    assert float(loss(truth, batch).total) == pytest.approx(0.0, abs=1e-6)
    largest, smallest = truth.clone(), truth.clone()
    largest[..., 0] += 1.0
    smallest[..., size - 1] += 1.0
    first, last = loss(largest, batch), loss(smallest, batch)
    assert float(first.expression) == pytest.approx(float(last.expression), rel=1e-4)
    assert float(first.shape) > 10.0 * float(last.shape)
