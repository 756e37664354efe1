from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from services.render.networks.unet import FilmConv
from services.render.renderers.hetero.network import GatedConv, HeteroConfig, HeteroNetwork, smoothed
from services.render.renderers.hetero.renderer import EMBEDDING_SIZE, NUM_CHANNELS, REFERENCE

SMALL = HeteroConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), embedder_widths=(4, 4, 4, 4), rank=2)


@pytest.mark.parametrize("stride", [1, 2])
def test_zero_state_is_prior(stride: int) -> None:
    """A state of zeros leaves the prior's gated convolution."""
    torch.manual_seed(0)
    layer = GatedConv(3, 5, stride=stride, rank=2)
    picture = torch.rand(2, 3, 8, 8)
    made = layer(picture, torch.zeros(2, layer.state_size))
    torch.testing.assert_close(made, F.silu(layer.conv(picture)) * torch.sigmoid(layer.gate(picture)))


def test_low_rank_equals_1x1() -> None:
    """Low rank weights are those of a 1x1 convolution."""
    torch.manual_seed(0)
    layer = GatedConv(3, 5, rank=2)
    layer.state_offset = 4
    into, back = torch.randn(2, 3), torch.randn(5, 2)
    state = torch.cat([torch.zeros(4 + 10), (into - layer.start).flatten(), back.flatten(), torch.zeros(3)])[None]
    picture = torch.rand(1, 3, 8, 8)
    expected = layer.conv(picture) + F.conv2d(picture, (back @ into)[:, :, None, None])
    torch.testing.assert_close(layer(picture, state), F.silu(expected) * torch.sigmoid(layer.gate(picture)))


def test_every_state_part_learns() -> None:
    """Every part of the state can begin to learn."""
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


def network(config: HeteroConfig = SMALL) -> HeteroNetwork:
    torch.manual_seed(0)
    made = HeteroNetwork(config)
    for weight in made.parameters():
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return made.eval().requires_grad_(False)


def pictures(count: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(count, NUM_CHANNELS, 160, 160)


def test_served_parameter_count() -> None:
    """The served network has one to two million parameters."""
    with torch.device("meta"):
        served = HeteroNetwork(HeteroConfig())
    assert 1e6 < sum(parameter.numel() for parameter in served.parameters()) < 2e6


def test_starts_as_smoothed_reference() -> None:
    """The network begins as the smoothed reference picture without detail."""
    torch.manual_seed(0)
    fresh, given = HeteroNetwork(replace(SMALL, details=False)), pictures()
    made = given[:, REFERENCE] + fresh(given, fresh.default_state()[None])
    torch.testing.assert_close(made, smoothed(given[:, REFERENCE]))
    assert made.std() < 0.2 * given[:, REFERENCE].std()


def test_state_number_belongs_to_layer() -> None:
    """Every number of the state belongs to one layer or to the vector."""
    made = network()
    slots = [module for module in made.modules() if isinstance(module, FilmConv | GatedConv)]
    ends = sorted((slot.state_offset, slot.state_offset + slot.state_size) for slot in slots)
    assert all(before[1] == after[0] for before, after in zip(ends, ends[1:], strict=False))
    assert (ends[0][0], ends[-1][1]) == (0, made.layers_size)
    assert made.state_size == made.layers_size + EMBEDDING_SIZE
    adain = [slot for slot in slots if getattr(slot, "normalise", False)]
    assert max(slot.state_offset + slot.state_size for slot in adain) == made.adain_size


def test_state_changes_own_actor() -> None:
    """The state changes the picture of its own actor only."""
    made, given = network(), pictures().expand(2, -1, -1, -1)
    torch.manual_seed(2)
    states = torch.stack([made.default_state(), torch.randn(made.state_size) * 0.1])
    plain, other = made(given, states)
    torch.testing.assert_close(plain, made(given[:1], states[:1])[0])
    assert (plain - other).abs().max() > 1e-3


def test_state_vector_added_to_reference() -> None:
    """The vector of the state is added to the reference's own."""
    made, given = network(), pictures()
    state = made.default_state()[None].clone()
    state[:, made.layers_size :] = 3.0
    assert (made(given, state) - made(given, made.default_state()[None])).abs().max() > 1e-3
    without = network(replace(SMALL, adain_levels=0))
    plain = without.default_state()[None]
    moved = plain.clone()
    moved[:, without.layers_size :] = 3.0
    assert torch.equal(without(given, moved), without(given, plain))


def test_reference_only_vector_and_colour() -> None:
    """Without skips and detail, only the vector and the smoothed colour come from the reference."""
    made, given = network(replace(SMALL, skips=False, details=False, adain_levels=0)), pictures()
    state, other = made.default_state()[None], given.clone()
    # Noise that the smoothing removes: each cell of 8 x 8 px keeps its mean.
    cells = other[:, REFERENCE].reshape(1, 3, 20, 8, 20, 8)
    other[:, REFERENCE] = cells.mean(dim=(3, 5), keepdim=True).expand_as(cells).reshape(1, 3, 160, 160)
    faces = [each[:, REFERENCE] + made(each, state) for each in (given, other)]
    torch.testing.assert_close(faces[0], faces[1])


@pytest.mark.parametrize("neighbours", [True, False])
def test_neighbours_used_unless_ablated(neighbours: bool) -> None:
    """The neighbours are seen unless they are left out."""
    made, given = network(replace(SMALL, neighbours=neighbours)), pictures()
    other = given.clone()
    other[:, 8:] = 0.0
    state = made.default_state()[None]
    assert torch.equal(made(given, state), made(other, state)) is not neighbours
