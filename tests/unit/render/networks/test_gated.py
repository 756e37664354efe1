from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from services.render.networks.gated import GatedConv


@pytest.mark.parametrize("stride", [1, 2])
def test_a_state_of_zeros_leaves_the_priors_gated_convolution(stride: int) -> None:
    torch.manual_seed(0)
    layer = GatedConv(3, 5, stride=stride, rank=2)
    picture = torch.rand(2, 3, 8, 8)
    made = layer(picture, torch.zeros(2, layer.state_size))
    torch.testing.assert_close(made, F.silu(layer.conv(picture)) * torch.sigmoid(layer.gate(picture)))


def test_low_rank_weights_are_those_of_a_1x1_convolution() -> None:
    torch.manual_seed(0)
    layer = GatedConv(3, 5, rank=2)
    layer.state_offset = 4
    into, back = torch.randn(2, 3), torch.randn(5, 2)
    state = torch.cat([torch.zeros(4 + 10), (into - layer.start).flatten(), back.flatten(), torch.zeros(3)])[None]
    picture = torch.rand(1, 3, 8, 8)
    expected = layer.conv(picture) + F.conv2d(picture, (back @ into)[:, :, None, None])
    torch.testing.assert_close(layer(picture, state), F.silu(expected) * torch.sigmoid(layer.gate(picture)))


def test_every_part_of_the_state_can_begin_to_learn() -> None:
    torch.manual_seed(0)
    layer = GatedConv(3, 5, rank=2)
    state = torch.zeros(1, layer.state_size, requires_grad=True)
    layer(torch.rand(1, 3, 8, 8), state).sum().backward()
    assert state.grad is not None
    scales_and_shifts, into, back = state.grad[0].split([10, 6, 10])
    assert scales_and_shifts.all()
    assert back.all()
    # B is zero, so A cannot matter yet.
    assert not into.any()
