"""Random choice of clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.motion.clips import Draw, batch_rng, clip_chances, frame_weights
from tests.unit.motion.made_clips import made_clip, row_of

ROWS = [row_of(made_clip(index, num_frames=40)) for index in range(3)]  # anna, anna, ben


def test_the_exponent_balances_speakers() -> None:
    np.testing.assert_allclose(frame_weights(ROWS, 1.0), 1.0)
    np.testing.assert_allclose(clip_chances(ROWS, 0.0), [0.5, 0.5, 1.0])


def test_long_clips_drawn_more_often() -> None:
    """Long clips are drawn more often than short clips of the same speaker."""
    longer = [ROWS[0], replace(ROWS[1], usable_frames=120), ROWS[2]]
    np.testing.assert_allclose(clip_chances(longer, 0.0), [0.25, 0.75, 1.0])


def test_a_corpus_of_half_the_weight_counts_half() -> None:
    light = [replace(row, weight=0.5) if row.speaker == "anna" else row for row in ROWS]
    found, full = frame_weights(light, 0.4), frame_weights(ROWS, 0.4)
    np.testing.assert_allclose(found, full * [0.5, 0.5, 1.0])


def test_numbers_are_drawn_in_proportion_to_their_weights() -> None:
    draw, rng = Draw(np.array([1.0, 0.0, 3.0])), batch_rng(0, 5, 0)
    counts = np.bincount([draw(rng) for _ in range(2000)], minlength=3)
    assert counts[1] == 0
    assert 0.7 < counts[2] / 2000 < 0.8
