from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from services.render.renderers.everyone.network import EveryoneConfig, EveryoneNetwork, ModulatedConv
from services.render.renderers.everyone.renderer import MORE, NEIGHBOURS, PICTURE_CHANNELS, SPEECH
from tests.unit.render.renderers.everyone.person import CONFIG, small_network


def layer(*, demodulate: bool = True) -> ModulatedConv:
    torch.manual_seed(1)
    return ModulatedConv(5, 7, 6, demodulate=demodulate).requires_grad_(False)


def test_modulated_convolution_matches_paper() -> None:
    """The layer computes with the modulated and demodulated weights of the paper."""
    own, x, style = layer(), torch.randn(2, 5, 9, 8), torch.randn(2, 6)
    made = own(x, style)
    for place in range(2):
        weights = own.conv.weight * (1.0 + own.affine @ style[place])[None, :, None, None]
        weights = weights / weights.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        assert torch.allclose(made[place], F.conv2d(x[place : place + 1], weights, padding=1)[0], atol=1e-4)


def test_without_demodulation_the_scale_of_the_style_stays() -> None:
    own, x = layer(demodulate=False), torch.randn(1, 5, 9, 8)
    plain = own(x, torch.zeros(1, 6))
    assert torch.allclose(plain, own.conv(x), atol=1e-6)
    style = torch.linalg.lstsq(own.affine, torch.ones(5, 1)).solution.T
    assert torch.allclose(own(x, style), 2.0 * plain, atol=1e-4)


def test_batch_items_have_own_style() -> None:
    """Each picture of a batch has its own style."""
    own, x, styles = layer(), torch.randn(3, 5, 9, 8), torch.randn(3, 6)
    together = own(x, styles)
    for place in range(3):
        assert torch.allclose(together[place], own(x[place : place + 1], styles[place : place + 1])[0], atol=1e-5)


def pictures(count: int = 2) -> torch.Tensor:
    values = np.random.default_rng(3).random((count, PICTURE_CHANNELS, 160, 160), np.float32)
    return torch.from_numpy(values)


def test_fresh_network_adds_fixed_mixture() -> None:
    """A fresh network adds its fixed mixture of the further features."""
    torch.manual_seed(2)
    network, shown = EveryoneNetwork(CONFIG).requires_grad_(False), pictures()
    made = network(shown, network.default_state().expand(2, -1))
    expected = 0.2 * torch.einsum("cf,bfhw->bchw", network.mixture, 2.0 * shown[:, MORE] - 1.0)
    assert torch.allclose(made, expected, atol=1e-5)
    shown[:, MORE] = 0.0
    assert not network(shown, network.default_state().expand(2, -1)).any()


def test_middle_frame_is_served() -> None:
    """The middle frame of the window is the served frame."""
    network, shown = small_network(), pictures()
    state = network.default_state().expand(2, -1)
    window = network.window(shown, state)
    assert window.shape == (2, 3, 3, 160, 160)
    assert torch.equal(window[:, 1], network(shown, state))


def test_inputs_change_the_picture() -> None:
    """Features speech and the actor's offset change the picture."""
    network, shown = small_network(), pictures(1)
    state = network.default_state()[None]
    plain = network(shown, state)
    other = shown.clone()
    other[:, MORE] = 0.5
    assert not torch.allclose(network(other, state), plain)
    other = shown.clone()
    other[:, SPEECH] = 0.0
    assert not torch.allclose(network(other, state), plain)
    assert not torch.allclose(network(shown, state + 1.0), plain)


def test_actor_batch_equals_single() -> None:
    """Frames of several actors in a batch equal single ones."""
    network, shown = small_network(), pictures(3)
    states = torch.randn(3, network.state_size)
    together = network(shown, states)
    for place in range(3):
        alone = network(shown[place : place + 1], states[place : place + 1])[0]
        assert torch.allclose(together[place], alone, atol=1e-5)


def test_large_network_channels() -> None:
    """The large network has the channels of the paper."""
    with torch.device("meta"):
        network = EveryoneNetwork(EveryoneConfig(widths=(256, 512, 512, 512), face_size=512, audio_size=512))
    assert network.lowest.conv.weight.shape == (512, 512, 3, 3)
    assert network.state_size == 1024


@pytest.mark.parametrize(
    ("change", "unseen"),
    [
        ({"texture_channels": 4}, [MORE.start + 1, MORE.stop - 1, NEIGHBOURS[0].start + 4, NEIGHBOURS[1].stop - 2]),
        ({"frames": 1}, [NEIGHBOURS[0].start, NEIGHBOURS[1].stop - 1]),
        ({"audio_style": False}, [SPEECH]),
    ],
)
def test_ablated_network_ignores_input(change: dict[str, Any], unseen: list[int]) -> None:
    """An ablated network does not see what was left out."""
    ablated, whole = small_network(replace(CONFIG, **change)), small_network()
    state, shown = whole.default_state()[None], pictures(1)
    other = shown.clone()
    other[:, unseen] = 1.0 - other[:, unseen]
    assert torch.equal(ablated(other, state), ablated(shown, state))
    assert not torch.equal(whole(other, state), whole(shown, state))
    # The first further feature and the masks of the neighbours are seen with four channels of the texture.
    seen = shown.clone()
    seen[:, MORE.start] = 1.0 - seen[:, MORE.start]
    assert not torch.equal(ablated(seen, state), ablated(shown, state))


def test_one_frame_window() -> None:
    """With one frame, a window holds the served frame alone."""
    network, shown = small_network(replace(CONFIG, frames=1)), pictures()
    state = network.default_state().expand(2, -1)
    assert torch.equal(network.window(shown, state), network(shown, state)[:, None])
