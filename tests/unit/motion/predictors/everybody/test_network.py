"""The network beside its filter."""

from __future__ import annotations

import numpy as np
import torch

from research.methods.everybody.motion import filter_alone, windows_of
from research.motion.ridge import Filter
from services.motion.predictors.everybody.network import WINDOW_SIZE, EverybodyConfig, EverybodyNetwork
from tests.unit.motion.predictors.everybody.made import clip, predicted


def test_served_with_half_filter() -> None:
    """The network is trained without its filter and served with half of it."""
    network = EverybodyNetwork(EverybodyConfig(num_expression=2, dropout=0.0))
    rng = np.random.default_rng(5)
    linear = Filter(rng.normal(0.0, 0.02, (2, WINDOW_SIZE)).astype(np.float32), np.array([0.1, -0.2], np.float32))
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    windows = torch.from_numpy(windows_of(clip(1).rows)[:4].copy())
    with torch.inference_mode():
        recurrent, served, filtered = network.train()(windows), network.eval()(windows), filter_alone(network)(windows)
    expected = torch.from_numpy(predicted(linear, clip(1))[:4].astype("float32"))
    torch.testing.assert_close(filtered, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(served, 0.5 * (recurrent + filtered), rtol=1e-3, atol=1e-4)
    assert float(recurrent.abs().mean()) < 0.1


def test_the_network_hears_all_of_its_second() -> None:
    network = EverybodyNetwork(EverybodyConfig(num_expression=2, dropout=0.0))
    window = torch.from_numpy(windows_of(clip(0).rows)[:1].copy()).requires_grad_(True)
    network.train()(window).abs().sum().backward()
    assert window.grad is not None
    assert (window.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
