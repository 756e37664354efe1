"""The temporal warp's energies on thin-plate splines in PyTorch (Song et al., Eq. 5, 6, 8 and 9).

Shapes: N sequences, T frames, M = 86 control points, 11 x 11 grid nodes 16 px apart over the render box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import NUM_ANCHORS, SMOOTHING

STEP: Final = 16.0
_MEASURED: Final = NUM_MOUTH_AREA + NUM_ANCHORS
_SIDE: Final = BOX_SIZE // int(STEP) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """Weights alpha_1, alpha_2, alpha_3 of Eq. 9.

    The paper uses 1 for each and does not state units. In pixels the terms are 0.8, 6e-5 and 1.3 at the start. With weights of 1
    the network damps the mouth's own motion (Et - 73 %, but Ef + 25 %) and bends freely. The weights here lower Et without raising
    Ef.
    """

    fitting: float = 1.0
    bending: float = 1000.0
    temporal: float = 0.1


@dataclass(frozen=True, slots=True)
class Energies:
    """Means of the energies over sequences and frames.

    Attributes:
        fitting: Ef, L1 distance between f(wanted) and the retrieved points, box pixels.
        bending: Eb, 1 / box pixel^2.
        temporal: Et, box pixels^2.
    """

    fitting: Tensor
    bending: Tensor
    temporal: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """Return L_tw of Eq. 9."""
        return weights.fitting * self.fitting + weights.bending * self.bending + weights.temporal * self.temporal


def spline_energies(wanted: Tensor, source: Tensor, moved: Tensor) -> Energies:
    """Return the energies of the splines f that map `wanted` to `moved`.

    Args:
        wanted: float64 [N, T, M, 2], centres, box pixels.
        source: float64 [N, T, M, 2], retrieved points, box pixels: targets of f at the mouth-area points and the anchors. Without
            the anchors the network would lower Ef and Et by moving nose and cheeks.
        moved: float64 [N, T, M, 2], values of f at the centres, box pixels: `source` plus the network's delta.
    """
    weights, affine = _solve(wanted, moved)
    at_points = _evaluate(wanted, weights, affine, wanted[..., :_MEASURED, :])
    fitting = (at_points - source[..., :_MEASURED, :]).abs().sum(-1).mean()
    axis = torch.arange(_SIDE, dtype=wanted.dtype, device=wanted.device) * STEP
    nodes = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).reshape(-1, 2)
    nodes = nodes.expand(*wanted.shape[:2], -1, -1)
    field = _evaluate(wanted, weights, affine, nodes).reshape(*wanted.shape[:2], _SIDE, _SIDE, 2)
    xx = field[:, :, 1:-1, 2:] - 2 * field[:, :, 1:-1, 1:-1] + field[:, :, 1:-1, :-2]
    yy = field[:, :, 2:, 1:-1] - 2 * field[:, :, 1:-1, 1:-1] + field[:, :, :-2, 1:-1]
    xy = (field[:, :, 2:, 2:] - field[:, :, 2:, :-2] - field[:, :, :-2, 2:] + field[:, :, :-2, :-2]) / 4
    bending = ((xx**2 + 2 * xy**2 + yy**2).sum(-1) / STEP**4).mean()
    temporal = ((field[:, 2:] - 2 * field[:, 1:-1] + field[:, :-2]) ** 2).sum(-1).mean()
    return Energies(fitting, bending, temporal)


def _solve(centres: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    count = centres.shape[-2]
    kernel = _radial(centres, centres) + torch.diag(torch.from_numpy(SMOOTHING).to(centres.device))
    side = torch.cat([torch.ones_like(centres[..., :1]), centres], dim=-1)
    system = torch.cat(
        [
            torch.cat([kernel, side], dim=-1),
            torch.cat([side.transpose(-1, -2), centres.new_zeros(*centres.shape[:-2], 3, 3)], dim=-1),
        ],
        dim=-2,
    )
    right = torch.cat([values, values.new_zeros(*values.shape[:-2], 3, 2)], dim=-2)
    solution = torch.linalg.solve(system, right)
    return solution[..., :count, :], solution[..., count:, :]


def _evaluate(centres: Tensor, weights: Tensor, affine: Tensor, points: Tensor) -> Tensor:
    return affine[..., :1, :] + points @ affine[..., 1:, :] + _radial(points, centres) @ weights


def _radial(points: Tensor, centres: Tensor) -> Tensor:
    across = points[..., :, None, 0] - centres[..., None, :, 0]
    down = points[..., :, None, 1] - centres[..., None, :, 1]
    squared = across**2 + down**2
    return 0.5 * squared * torch.log(squared.clamp(min=1e-12))
