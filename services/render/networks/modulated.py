"""Modulated convolution of StyleGAN2 (Karras et al. 2020, Sec. 2.2): a style vector scales the weights, and demodulation takes the
scale of the output back to that of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPSILON: float = 1e-6


class ModulatedConv(nn.Module):
    """Convolution with weights w'_oik = s_i w_oik / sqrt(sum_ik (s_i w_oik)^2), where s = 1 + A style.

    The scales s act on the input and the root acts on the output, so one convolution with the same weights computes all pictures of
    a batch. The result is that of the paper's weights.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        style_size: numbers of the style vector.
        demodulate: divide by the root. The last layer of a network does not, because its output has a scale of its own.
    """

    def __init__(self, in_channels: int, out_channels: int, style_size: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        self.affine = nn.Parameter(torch.randn(in_channels, style_size) * 0.5 / style_size**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Return the layer's output, float [B, out_channels, H, W].

        Args:
            x: float [B, in_channels, H, W].
            style: float [B, style_size].
        """
        # Sums of products, where a matrix product's last bits would depend on the batch.
        scale = 1.0 + (style[:, None] * self.affine).sum(dim=-1)
        made: Tensor = self.conv(x * scale[:, :, None, None])
        if self.demodulate:
            energy = self.conv.weight.square().sum(dim=(2, 3))
            made = made * torch.rsqrt((scale.square()[:, None] * energy).sum(dim=-1) + _EPSILON)[..., None, None]
        return made + self.bias[:, None, None]
