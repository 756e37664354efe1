"""The training of the Audio-to-Expression network on made-up clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.motion.expression_window import EXPRESSION_PAST, EXPRESSION_WINDOW, NUM_HEARD
from services.motion.models import MotionModels
from services.motion.networks.audio_to_expression import AudioToExpressionConfig, AudioToExpressionNetwork
from services.motion.train.expression import ExpressionLoss, ExpressionTraining, filter_of
from services.motion.train.expression_data import (
    ExpressionClip,
    ExpressionSampler,
    ExpressionWindows,
    Filter,
    fit_filter,
    windows_of,
)


def clip(speaker: str, seed: int, num_frames: int = 150) -> ExpressionClip:
    """Expression that follows one channel of the frame itself, and another one frame late."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_frames + EXPRESSION_WINDOW - 1, 4, NUM_HEARD)).astype(np.float32)
    here = rows[EXPRESSION_PAST : EXPRESSION_PAST + num_frames]
    before = rows[EXPRESSION_PAST - 1 : EXPRESSION_PAST - 1 + num_frames]
    expression = np.stack([here[:, 1, 3], 0.5 * before[:, 0, 7]], axis=1)
    return ExpressionClip(speaker, rows, expression, np.ones(2, np.float32), np.arange(num_frames))


def predicted(linear: Filter, made: ExpressionClip) -> np.ndarray:
    return windows_of(made.rows).reshape(len(made.expression), -1) @ linear.weight.T + linear.bias


def test_the_filter_finds_what_the_expression_follows() -> None:
    linear = fit_filter([clip(speaker, seed) for seed, speaker in enumerate("aabb")], {"a": 1.0, "b": 1.0}, 0.01)
    other = clip("c", 9)
    for k in range(2):
        assert np.corrcoef(predicted(linear, other)[:, k], other.expression[:, k])[0, 1] > 0.6
    weight = np.abs(linear.weight[0]).reshape(EXPRESSION_WINDOW, 4, NUM_HEARD)
    assert np.unravel_index(weight.argmax(), weight.shape) == (EXPRESSION_PAST, 1, 3)


def test_the_filter_as_a_network_is_the_filter() -> None:
    linear = fit_filter([clip("a", 0)], {"a": 1.0}, 0.1)
    other = clip("b", 1)
    with torch.inference_mode():
        found = filter_of(linear)(torch.from_numpy(windows_of(other.rows).copy())).numpy()
    np.testing.assert_allclose(found, predicted(linear, other), rtol=1e-4, atol=1e-4)


def test_the_network_is_trained_without_its_filter_and_served_with_half_of_it() -> None:
    network = AudioToExpressionNetwork(AudioToExpressionConfig(num_expression=2, dropout=0.0))
    linear = fit_filter([clip("a", 0)], {"a": 1.0}, 0.1)
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    windows = torch.from_numpy(windows_of(clip("b", 1).rows)[:4].copy())
    with torch.inference_mode():
        recurrent, served, filtered = network.train()(windows), network.eval()(windows), filter_of(linear)(windows)
    torch.testing.assert_close(served, 0.5 * (recurrent + filtered), rtol=1e-3, atol=1e-4)
    assert float(recurrent.abs().mean()) < 0.1


def test_the_network_hears_all_of_its_second() -> None:
    network = AudioToExpressionNetwork(AudioToExpressionConfig(num_expression=2, dropout=0.0))
    window = torch.from_numpy(windows_of(clip("a", 0).rows)[:1].copy()).requires_grad_(True)
    network.train()(window).abs().sum().backward()
    assert window.grad is not None
    assert (window.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_the_loss_is_zero_for_the_truth_and_grows_with_the_mouth_that_moves(models: MotionModels) -> None:
    basis = models.expression.basis
    size = len(basis.typical_spread)
    loss = ExpressionLoss(basis, ExpressionTraining())
    truth = torch.randn(3, 2, size)
    batch = ExpressionWindows(torch.zeros(3, 2, 1), truth, torch.from_numpy(basis.typical_spread.copy()).expand(3, -1))
    assert float(loss(truth, batch).total) == pytest.approx(0.0, abs=1e-6)
    largest, smallest = truth.clone(), truth.clone()
    largest[..., 0] += 1.0
    smallest[..., size - 1] += 1.0
    first, last = loss(largest, batch), loss(smallest, batch)
    assert float(first.expression) == pytest.approx(float(last.expression), rel=1e-4)
    assert float(first.shape) > 10.0 * float(last.shape)


def test_pairs_are_neighbouring_frames_and_seeded() -> None:
    sampler = ExpressionSampler([clip("a", 0), clip("b", 1)], {"a": 1.0, "b": 1.0}, 0.0, 0.0)
    drawn = sampler.draw(np.random.default_rng(3), 5)
    torch.testing.assert_close(drawn.window[:, 0, 1:], drawn.window[:, 1, :-1])
    torch.testing.assert_close(drawn.expression[..., 0], drawn.window[:, :, EXPRESSION_PAST, 1, 3])
    torch.testing.assert_close(drawn.window, sampler.draw(np.random.default_rng(3), 5).window)
