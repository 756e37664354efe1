"""The linear layer per person."""

from __future__ import annotations

import numpy as np

from services.motion.predictors.everyone.person_layer import LARGEST_SCALE, apply_layer, fit_layer

RNG = np.random.default_rng(1)
PREDICTED = RNG.standard_normal((250, 3))
WEIGHT = np.ones(3)


def test_the_layer_finds_the_range_and_the_level_of_a_person() -> None:
    truth = PREDICTED * [0.5, 1.0, 1.5] + [0.3, 0.0, -0.4] + 0.1 * RNG.standard_normal((250, 3))
    layer = fit_layer(PREDICTED, truth, WEIGHT)
    np.testing.assert_allclose(layer, [[0.5, 1.0, 1.5], [0.3, 0.0, -0.4]], atol=0.1)
    assert layer.dtype == np.float32


def test_a_person_as_predicted_changes_nothing() -> None:
    layer = fit_layer(PREDICTED, PREDICTED, WEIGHT)
    np.testing.assert_allclose(layer, [[1.0] * 3, [0.0] * 3], atol=1e-6)
    np.testing.assert_allclose(apply_layer(layer, PREDICTED), PREDICTED, atol=1e-6)


def test_what_little_footage_says_is_believed_in_part() -> None:
    few = PREDICTED[:60]
    truth = few + 2.0 * RNG.standard_normal(few.shape) + 0.5
    layer = fit_layer(few, truth, WEIGHT)
    for k in range(3):
        scale, offset = np.polyfit(few[:, k], truth[:, k], 1)
        assert abs(layer[0, k] - 1.0) < 0.8 * abs(scale - 1.0)
        assert abs(layer[1, k]) < 0.8 * abs(offset)


def test_scales_stay_within_their_limits() -> None:
    opposite, huge = (fit_layer(PREDICTED, scale * PREDICTED, WEIGHT) for scale in (-5.0, 50.0))
    np.testing.assert_array_equal(opposite[0], 0.0)
    np.testing.assert_array_equal(huge[0], np.float32(LARGEST_SCALE))


def test_a_coefficient_that_never_moves_stays_finite() -> None:
    assert np.isfinite(fit_layer(np.zeros((60, 3)), np.ones((60, 3)), WEIGHT)).all()
