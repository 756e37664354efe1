from __future__ import annotations

import pytest
import torch

from services.render.networks.refine import FilmConv, RefineConfig, RefineNetwork
from services.render.networks.weights import load_refine, save_weights


@pytest.fixture(scope="module")
def network() -> RefineNetwork:
    torch.manual_seed(1)
    made = RefineNetwork(RefineConfig(widths=(8, 12, 16, 16), depths=(1, 1, 1, 1))).eval().requires_grad_(False)
    torch.nn.init.normal_(made.head.conv.weight, std=0.1)
    return made


def test_an_untrained_network_adds_nothing_to_the_texture() -> None:
    fresh = RefineNetwork(RefineConfig(widths=(8, 8, 8, 8)))
    assert not fresh(torch.rand(1, 9, 160, 160), fresh.default_state()[None]).any()


def test_the_default_state_changes_nothing() -> None:
    layer = FilmConv(3, 4, linear=True)
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(layer(picture, torch.zeros(1, 8)), layer.conv(picture))


def test_every_number_of_the_state_belongs_to_one_layer(network: RefineNetwork) -> None:
    slots = [module for module in network.modules() if isinstance(module, FilmConv)]
    ends = sorted((slot.state_offset, slot.state_offset + slot.state_size) for slot in slots)
    assert ends[0][0] == 0
    assert ends[-1][1] == network.state_size == len(network.default_state())
    assert all(before[1] == after[0] for before, after in zip(ends, ends[1:], strict=False))


def test_the_state_changes_the_picture_of_its_own_batch_item_only(network: RefineNetwork) -> None:
    pictures = torch.rand(2, 9, 160, 160)
    states = network.default_state().repeat(2, 1)
    plain = network(pictures, states)
    states[1] += 0.1
    changed = network(pictures, states)
    assert torch.allclose(plain[0], changed[0], atol=1e-6)
    assert (plain[1] - changed[1]).abs().max() > 1e-3


def test_weights_come_back_from_their_file(network: RefineNetwork, tmp_path) -> None:  # type: ignore[no-untyped-def]
    save_weights(tmp_path / "refine.safetensors", network, network.config.to_metadata())
    again = load_refine(tmp_path / "refine.safetensors")
    pictures = torch.rand(1, 9, 160, 160)
    state = network.default_state()[None]
    assert again.config == network.config
    assert torch.allclose(again(pictures, state), network(pictures, state), atol=5e-3)
