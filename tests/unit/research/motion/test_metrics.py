"""Scores of mouths."""

from __future__ import annotations

import numpy as np
import pytest

from research.motion.protocol import pearson, score_motion
from services.common.face.landmarks import NUM_LIPS
from tests.unit.motion.synthesised import mouths


def test_scores_tell_right_from_wrong_motion() -> None:
    truth = mouths((5.0 + 4.0 * np.sin(np.arange(80) * 0.6)).astype(np.float32))
    other = mouths((5.0 + 2.0 * np.cos(np.arange(80) * 0.6)).astype(np.float32))
    usable, bilabial = np.ones(80, np.bool_), np.zeros(80, np.float32)
    right = score_motion(truth, truth, truth.mean(0), usable, bilabial, 2.0)
    wrong = score_motion(other, truth, truth.mean(0), usable, bilabial, 2.0)
    assert right.opening_correlation == pytest.approx(1.0)
    assert right.lip_distance == 0.0
    assert right.spread_ratio == pytest.approx(1.0)
    assert abs(wrong.opening_correlation) < 0.2
    assert wrong.spread_ratio == pytest.approx(0.5, abs=0.05)


def test_width_and_fastest_step() -> None:
    """Width and fastest step are measured against the truth."""
    opening = (5.0 + 4.0 * np.sin(np.arange(80) * 0.6)).astype(np.float32)
    truth, predicted = mouths(opening), mouths(0.5 * opening)
    # The corners move by a word's rhythm, and by a slow drift in the prediction alone.
    word, drift = np.sin(np.arange(80) * 0.8)[:, None], np.linspace(0.0, 40.0, 80)[:, None]
    truth[:, :NUM_LIPS, 0] *= 1.0 + 0.1 * word
    predicted[:, :NUM_LIPS, 0] *= 1.0 + 0.06 * word + 0.001 * drift
    score = score_motion(predicted, truth, truth.mean(0), np.ones(80, np.bool_), np.zeros(80, np.float32), 2.0)
    assert score.width_spread_ratio == pytest.approx(0.6, abs=0.05)
    assert score.fastest_step_ratio == pytest.approx(0.5, abs=0.02)


def test_closures_are_counted_where_the_truth_closes() -> None:
    truth = mouths(np.array([8, 8, 0, 8, 8, 8, 8, 8, 0, 8], np.float32))
    half = mouths(np.array([8, 8, 0, 8, 8, 8, 8, 8, 7, 8], np.float32))
    bilabial = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0], np.float32)
    score = score_motion(half, truth, truth.mean(0), np.ones(10, np.bool_), bilabial, 4.0)
    assert (score.closure_hits, score.closure_events) == (1, 2)


def test_correlation_of_a_constant_is_nothing() -> None:
    assert pearson(np.ones(10), np.arange(10.0)) == 0.0
