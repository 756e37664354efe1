from __future__ import annotations

import torch
from torch.nn import functional as F

from services.render.networks.modulated import ModulatedConv


def layer(*, demodulate: bool = True) -> ModulatedConv:
    torch.manual_seed(1)
    return ModulatedConv(5, 7, 6, demodulate=demodulate).requires_grad_(False)


def test_the_layer_computes_with_the_modulated_and_demodulated_weights_of_the_paper() -> None:
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


def test_each_picture_of_a_batch_has_its_own_style() -> None:
    own, x, styles = layer(), torch.randn(3, 5, 9, 8), torch.randn(3, 6)
    together = own(x, styles)
    for place in range(3):
        assert torch.allclose(together[place], own(x[place : place + 1], styles[place : place + 1])[0], atol=1e-5)
