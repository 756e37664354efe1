from __future__ import annotations

import torch

from services.render.renderers.everybody.network import EverybodyConfig, EverybodyNetwork
from services.render.renderers.everybody.renderer import KEYS_AFTER, KEYS_BEFORE, WINDOW_CHANNELS


def test_served_parameter_count() -> None:
    """The served network has one to two million parameters."""
    with torch.device("meta"):
        network = EverybodyNetwork(EverybodyConfig())
    assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 2e6


def test_starts_as_key_mean() -> None:
    """The network begins as the mean of the key pictures."""
    torch.manual_seed(0)
    network = EverybodyNetwork(EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    pictures = torch.rand(2, WINDOW_CHANNELS, 32, 32)
    made = pictures[:, KEYS_BEFORE] + network(pictures, network.default_state().expand(2, -1))
    keys = torch.stack([pictures[:, KEYS_BEFORE], *torch.split(pictures[:, KEYS_AFTER], 3, dim=1)])
    torch.testing.assert_close(made, keys.mean(dim=0))


def test_state_changes_own_actor() -> None:
    """The state changes the picture of its own actor only."""
    torch.manual_seed(0)
    network = EverybodyNetwork(EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    torch.nn.init.normal_(network.head.conv.weight, std=0.1)
    pictures = torch.rand(1, WINDOW_CHANNELS, 32, 32).expand(2, -1, -1, -1)
    states = torch.stack([network.default_state(), torch.randn(network.state_size) * 0.1])
    plain, other = network(pictures, states)
    torch.testing.assert_close(plain, network(pictures[:1], states[:1])[0])
    assert (plain - other).abs().max() > 1e-3
