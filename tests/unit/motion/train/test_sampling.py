"""Random choice of clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.motion.train.sampling import Draw, batch_rng, clip_weights
from tests.unit.motion.made_clips import made_clip, row_of

ROWS = [row_of(made_clip(index, num_frames=40)) for index in range(3)]  # anna, anna, ben


def test_the_exponent_balances_speakers() -> None:
    np.testing.assert_allclose(clip_weights(ROWS, 1.0), 1.0)
    np.testing.assert_allclose(clip_weights(ROWS, 0.0), [0.5, 0.5, 1.0])


def test_a_clip_of_twice_the_weight_is_two_clips() -> None:
    heavy = [ROWS[0], replace(ROWS[1], weight=2.0), ROWS[2]]
    doubled = [*ROWS, ROWS[1]]
    found, expected = clip_weights(heavy, 0.4), clip_weights(doubled, 0.4)
    np.testing.assert_allclose(found, [expected[0], expected[1] + expected[3], expected[2]])


def test_numbers_are_drawn_in_proportion_to_their_weights() -> None:
    draw, rng = Draw(np.array([1.0, 0.0, 3.0])), batch_rng(0, 5, 0)
    counts = np.bincount([draw(rng) for _ in range(2000)], minlength=3)
    assert counts[1] == 0
    assert 0.7 < counts[2] / 2000 < 0.8
