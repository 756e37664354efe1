"""Gated convolution (Yu et al. 2019) with an actor's scales, shifts and low-rank weights (Hu et al. 2022)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GATE_BIAS: Final = 1.0
"""Bias with which gates begin: rather open."""


class GatedConv(nn.Module):
    """SiLU((W x + B A x) * (1 + scale) + shift) * sigmoid(gate(x)).

    W and gate are 3 x 3 convolutions, which the prior learns. Scale, shift and the low-rank weights are the actor's. A and B are
    1 x 1 convolutions with few channels between them; A is a fixed random matrix plus the actor's part, and B is the actor's alone.
    So an all-zero state changes nothing, and still gives B a gradient.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 2 halves height and width.
        rank: channels between A and B.
    """

    start: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, rank: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.gate = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(self.gate.weight, nonlinearity="linear")
        nn.init.constant_(self.gate.bias, _GATE_BIAS)  # type: ignore[arg-type]
        self.register_buffer("start", torch.randn(rank, in_channels) / in_channels**0.5)
        self.stride, self.rank = stride, rank
        self.film_size = 2 * out_channels
        self.state_size = self.film_size + rank * (in_channels + out_channels)
        self.state_offset = 0
        """Where this layer's numbers begin inside an actor's state: scales, shifts, A, B. The network sets this number."""

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the layer's output.

        Args:
            x: float [B, in_channels, H, W].
            state: float [B, S], the actors' whole states.
        """
        own = state[:, self.state_offset : self.state_offset + self.state_size]
        out_channels, inner = self.film_size // 2, self.start.numel()
        scale, shift = own[:, :out_channels, None, None], own[:, out_channels : self.film_size, None, None]
        into = self.start + own[:, self.film_size : self.film_size + inner].reshape(-1, *self.start.shape)
        back = own[:, self.film_size + inner :].reshape(-1, out_channels, self.rank)
        made: Tensor = self.conv(x)
        seen = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        made = made + (back @ (into @ seen.flatten(2))).reshape(made.shape)
        gate: Tensor = self.gate(x)
        return F.silu(made * (1.0 + scale) + shift) * torch.sigmoid(gate)
