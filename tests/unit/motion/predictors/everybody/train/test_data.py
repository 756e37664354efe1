"""Windows and the closed-form filter."""

from __future__ import annotations

import numpy as np
import torch

from services.motion.predictors.everybody.inputs import NUM_HEARD, WINDOW, WINDOW_PAST
from services.motion.predictors.everybody.train.data import EverybodySampler, fit_filter
from tests.unit.motion.predictors.everybody.made import clip, predicted


def test_the_filter_finds_what_the_expression_follows() -> None:
    linear = fit_filter([clip(speaker, seed) for seed, speaker in enumerate("aabb")], {"a": 1.0, "b": 1.0}, 0.01)
    other = clip("c", 9)
    for k in range(2):
        assert np.corrcoef(predicted(linear, other)[:, k], other.expression[:, k])[0, 1] > 0.6
    weight = np.abs(linear.weight[0]).reshape(WINDOW, 4, NUM_HEARD)
    assert np.unravel_index(weight.argmax(), weight.shape) == (WINDOW_PAST, 1, 3)


def test_pairs_are_neighbouring_frames_and_seeded() -> None:
    sampler = EverybodySampler([clip("a", 0), clip("b", 1)], {"a": 1.0, "b": 1.0}, 0.0, 0.0)
    drawn = sampler.draw(np.random.default_rng(3), 5)
    torch.testing.assert_close(drawn.window[:, 0, 1:], drawn.window[:, 1, :-1])
    torch.testing.assert_close(drawn.expression[..., 0], drawn.window[:, :, WINDOW_PAST, 1, 3])
    torch.testing.assert_close(drawn.window, sampler.draw(np.random.default_rng(3), 5).window)
