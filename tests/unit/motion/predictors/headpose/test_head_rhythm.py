"""Scores from signals of the speech."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.models import MotionModels
from services.motion.predictors.headpose.head_rhythm import (
    NUM_LAGS,
    NUM_SIGNALS,
    RhythmConstants,
    ScoreStream,
    SignalStream,
    general_weights,
    slowed_down,
    tuned,
)
from services.motion.predictors.headpose.model import HeadposeModel


def white(num_signals: int = NUM_SIGNALS) -> RhythmConstants:
    lags = np.zeros((NUM_LAGS, num_signals, num_signals))
    lags[0] = np.eye(num_signals)
    nothing = np.zeros(6)
    return RhythmConstants(nothing, np.ones(6), 0.0, 1.0, np.zeros(44), np.zeros((6, 44)), lags)


@pytest.mark.parametrize("step", [0.06, 0.15, 0.3])
def test_scores_have_variance_one_and_the_persons_pace(step: float) -> None:
    rhythm = tuned(general_weights(), np.full(6, step), white())
    signals = np.random.default_rng(0).standard_normal((20000, NUM_SIGNALS))
    scores = slowed_down(signals @ rhythm.weights.T, rhythm.poles)[500:]
    np.testing.assert_allclose(scores.std(axis=0), 1.0, atol=0.12)
    np.testing.assert_allclose(np.diff(scores, axis=0).std(axis=0), step, rtol=0.08)


def test_the_level_brings_any_speech_to_variance_one() -> None:
    stream = ScoreStream(tuned(general_weights(), np.full(6, 0.2), white()))
    signals = 2.0 * np.random.default_rng(0).standard_normal((3000, NUM_SIGNALS))
    scores = np.stack([stream.push(row, 1.0) for row in signals])
    np.testing.assert_allclose(scores[1000:].std(axis=0), 1.0, atol=0.2)


def test_signals_rest_in_silence_and_forget_the_voice(models: MotionModels) -> None:
    stream = SignalStream(HeadposeModel.of(models).rhythm)
    row = np.full((4, 44), 0.3, np.float32)
    pose = np.full(6, 0.5, np.float32)
    assert not stream.push(pose, row, 0.0).any()
    first, *_, last = [np.abs(stream.push(pose, row, 1.0)).max() for _ in range(500)]
    assert last < 0.15 * first
