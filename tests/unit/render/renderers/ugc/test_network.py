from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.render.networks.weights import save_weights
from services.render.renderers.ugc.network import UgcConfig, UgcNetwork, load


@pytest.fixture(scope="module")
def network() -> UgcNetwork:
    torch.manual_seed(1)
    made = UgcNetwork(UgcConfig(widths=(8, 12, 16, 16), depths=(1, 1, 1, 1))).eval().requires_grad_(False)
    torch.nn.init.normal_(made.head.conv.weight, std=0.1)
    return made


def test_an_untrained_network_adds_nothing_to_the_texture() -> None:
    fresh = UgcNetwork(UgcConfig(widths=(8, 8, 8, 8)))
    assert not fresh(torch.rand(1, 9, 160, 160), fresh.default_state()[None]).any()


def test_state_changes_own_batch_item(network: UgcNetwork) -> None:
    """The state changes the picture of its own batch item only."""
    pictures = torch.rand(2, 9, 160, 160)
    states = network.default_state().repeat(2, 1)
    plain = network(pictures, states)
    states[1] += 0.1
    changed = network(pictures, states)
    assert torch.allclose(plain[0], changed[0], atol=1e-6)
    assert (plain[1] - changed[1]).abs().max() > 1e-3


def test_weights_come_back_from_their_file(network: UgcNetwork, tmp_path: Path) -> None:
    save_weights(tmp_path / "ugc.safetensors", network, network.config.to_metadata())
    again = load(tmp_path / "ugc.safetensors")
    pictures = torch.rand(1, 9, 160, 160)
    state = network.default_state()[None]
    assert again.config == network.config
    assert torch.allclose(again(pictures, state), network(pictures, state), atol=5e-3)
