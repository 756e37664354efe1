from __future__ import annotations

import torch

from services.render.networks.unet import FilmConv, ResidualBlock, UNetTrunk


def test_the_default_state_changes_nothing() -> None:
    layer = FilmConv(3, 4, linear=True)
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(layer(picture, torch.zeros(1, 8)), layer.conv(picture))


def test_state_number_belongs_to_layer() -> None:
    """Every number of the state belongs to one layer."""
    network = UNetTrunk((8, 12, 16), (1, 2, 1), in_channels=5, out_channels=7)
    slots = [module for module in network.modules() if isinstance(module, FilmConv)]
    ends = sorted((slot.state_offset, slot.state_offset + slot.state_size) for slot in slots)
    assert ends[0][0] == 0
    assert ends[-1][1] == network.state_size == len(network.default_state())
    assert all(before[1] == after[0] for before, after in zip(ends, ends[1:], strict=False))


def test_trunk_half_size_starts_zero() -> None:
    """The trunk has half the picture's size and begins at zero."""
    network = UNetTrunk((8, 12), (1, 1), in_channels=5, out_channels=7, normalised_levels=1)
    made = network.trunk(torch.rand(2, 5, 32, 16), network.default_state().expand(2, -1))
    assert made.shape == (2, 7, 16, 8)
    assert not made.any()


def test_a_residual_block_begins_as_the_identity() -> None:
    block = ResidualBlock(4, normalise=True)
    picture = torch.rand(1, 4, 8, 8)
    assert torch.equal(block(picture, torch.zeros(1, 16)), picture)
