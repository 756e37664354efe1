"""The temporal-warp network (Song et al., Sec. III-B.2 and Fig. 4): residuals of the thin-plate spline's parameters.

Shapes: B windows, 6 frames t - 5 .. t, M = 86 control points, 2 = x, y in box pixels.

The residual of the parameters (a, w) goes through the spline's own linear system: the network moves the right side v, and since the
solution is linear in v,

    (a, w) + residual = solve(system, v + delta) = solve(system, v) + solve(system, delta).

So every residual that keeps the side conditions P^T w = 0 is possible, and no other. Raw residuals of w, whose basis values reach
1e5, would need the paper's learning rate of 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import BORDER_POINTS, NUM_CONTROL_POINTS, WINDOW

_MOVABLE = NUM_CONTROL_POINTS - len(BORDER_POINTS)
_DISPLACEMENT_SCALE = 4.0
_SHAPE_SCALE = BOX_SIZE / 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalWarpConfig:
    """Size of the network."""

    hidden: int = 192


class TemporalWarp(nn.Module):
    """Moves of the source points from a window of wanted and retrieved control points.

    A linear part (a filter over time and points, the same for x and y) and a small perceptron over the mouth's shape. Both begin at
    zero, so the untrained network is the plain spline.
    """

    def __init__(self, config: TemporalWarpConfig) -> None:
        super().__init__()
        values = WINDOW * NUM_CONTROL_POINTS
        self.filter = nn.Linear(values, _MOVABLE, bias=False)
        self.perceptron = nn.Sequential(
            nn.Linear(4 * values, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, 2 * _MOVABLE),
        )
        nn.init.zeros_(self.filter.weight)
        last = self.perceptron[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, wanted: Tensor, source: Tensor) -> Tensor:
        """Return delta [B, M, 2] of the window's last frame, box pixels; 0 at the border points.

        Args:
            wanted: float32 [B, 6, M, 2].
            source: float32 [B, 6, M, 2].
        """
        displacement = source - wanted
        filtered = self.filter(displacement.permute(0, 3, 1, 2).flatten(2))
        shape = (wanted - BOX_SIZE / 2) / _SHAPE_SCALE
        known = torch.cat([displacement / _DISPLACEMENT_SCALE, shape], dim=3).flatten(1)
        bent: Tensor = self.perceptron(known).unflatten(1, (_MOVABLE, 2))
        moved = filtered.transpose(1, 2) + bent
        return torch.cat([moved, torch.zeros_like(moved[:, : len(BORDER_POINTS)])], dim=1)
