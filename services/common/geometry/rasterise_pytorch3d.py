"""The rasteriser on pytorch3d, for machines where pytorch3d is installed (a package with CUDA kernels that is not on PyPI).

pytorch3d differs from the definition in rasterise.py in three points. A centre exactly on an edge may belong to no triangle or to
either triangle. The order of equally near triangles is not specified. All arithmetic is in float32. This module decides by the
rules of rasterise.py which triangles are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, Floating, Int32
from services.common.errors import BackendUnavailableError
from services.common.geometry.fragments import Cull, Fragments, on_grid

_LARGEST_SUM = float(1 << 28)


def is_installed() -> bool:
    """Return whether pytorch3d can be imported."""
    return importlib.util.find_spec("pytorch3d") is not None


def check_installed() -> None:
    """Raise BackendUnavailableError unless pytorch3d is installed.

    Raises:
        BackendUnavailableError: pytorch3d is not installed.
    """
    if not is_installed():
        raise BackendUnavailableError(
            "pytorch3d is not installed: install a wheel of pytorch3d for this Python and torch, or choose the rasteriser numba, "
            "which needs no further package"
        )


class TorchSurface(NamedTuple):
    """Drawn mesh. Attributes: values float64 [H, W, C]; covered bool [H, W]; gradient: as `DrawnSurface.gradient`."""

    values: Float64
    covered: npt.NDArray[np.bool_]
    gradient: Callable[[Float64], tuple[Float64, Float64]]


def draw_with_pytorch3d(
    points: Floating, depth: Floating, triangles: Int32, attributes: Floating, size: tuple[int, int]
) -> TorchSurface:
    """Return the drawn surface, as `draw_surface` does. The arguments are those of `draw_surface`.

    Raises:
        BackendUnavailableError: pytorch3d is not installed.
    """
    check_installed()
    import torch
    from pytorch3d.ops import interpolate_face_attributes

    device = _device()
    kept = triangles[usable(points, depth, triangles, cull="back")].astype(np.int64)
    if not len(kept):
        empty = np.zeros((*size, attributes.shape[1]))
        return TorchSurface(empty, np.zeros(size, bool), lambda _: (np.zeros(points.shape), np.zeros(attributes.shape)))
    pixels = torch.from_numpy(np.asarray(points, np.float32)).to(device).requires_grad_()
    rows = torch.from_numpy(np.asarray(attributes, np.float32)).to(device).requires_grad_()
    lifted = torch.from_numpy(np.asarray(depth - depth.min() + 1.0, np.float32)).to(device)
    middle = torch.tensor([(size[1] - 1) / 2.0, (size[0] - 1) / 2.0], device=device)
    flat = (middle - pixels) * (2.0 / min(size))
    faces = torch.from_numpy(kept).to(device)
    pix_to_face, _, weights = _rasterised([torch.cat([flat, lifted[:, None]], 1)], [faces], size)
    drawn = interpolate_face_attributes(pix_to_face, weights, rows[faces])[0, :, :, 0]

    def gradient(upstream: Float64) -> tuple[Float64, Float64]:
        given = torch.from_numpy(np.asarray(upstream, np.float32).reshape(drawn.shape)).to(device)
        parts = torch.autograd.grad(drawn, (pixels, rows), given, retain_graph=True)
        to_points, to_rows = (part.cpu().numpy().astype(np.float64) for part in parts)
        return to_points, to_rows

    return TorchSurface(drawn.detach().cpu().numpy().astype(np.float64), (pix_to_face[0, ..., 0] >= 0).cpu().numpy(), gradient)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _rasterised(vertices: list[Any], faces: list[Any], size: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Return pytorch3d's face of each pixel (counted over all meshes), depth and barycentrics: [N, H, W, 1 (, 3)] tensors."""
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    pix_to_face, depth, weights, _ = rasterize_meshes(
        Meshes(vertices, faces),
        image_size=size,
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=False,
        clip_barycentric_coords=False,
        cull_backfaces=False,
        bin_size=0,  # pytorch3d's bins overflow silently on dense meshes
    )
    return pix_to_face, depth, weights


def rasterise_with_pytorch3d(
    vertices: Floating,
    depth: Floating,
    triangles: Int32,
    height: int,
    width: int,
    *,
    cull: Cull,
) -> Fragments:
    """Return the fragments, as `rasterise` does, on the GPU if torch finds one. The caller has checked the arguments.

    Raises:
        BackendUnavailableError: pytorch3d is not installed.
    """
    check_installed()
    import torch

    device = _device()
    # pytorch3d drops depth below zero. Only differences of depth matter.
    lift = 1.0 - float(depth[np.isfinite(depth)].min(initial=0.0))
    space = to_device_coordinates(vertices, depth + lift, height, width)
    kept = [np.flatnonzero(usable(points, z, triangles, cull=cull)) for points, z in zip(vertices, depth, strict=True)]
    shown = [item for item, rows in enumerate(kept) if len(rows)]
    index = np.full((len(vertices), height, width), -1, np.int32)
    barycentrics = np.zeros((len(vertices), height, width, 3), np.float32)
    nearest = np.full((len(vertices), height, width), np.inf, np.float32)
    if shown:
        faces, z_buffer, weights = _rasterised(
            [torch.from_numpy(np.nan_to_num(space[item])).to(device) for item in shown],
            [torch.from_numpy(triangles[kept[item]].astype(np.int64)).to(device) for item in shown],
            (height, width),
        )
        packed = faces[..., 0].cpu().numpy()
        first = 0
        for batch_index, item in enumerate(shown):
            covered = packed[batch_index] >= 0
            index[item][covered] = kept[item][packed[batch_index][covered] - first]
            barycentrics[item][covered] = weights[batch_index, ..., 0, :].cpu().numpy()[covered]
            nearest[item][covered] = z_buffer[batch_index, ..., 0].cpu().numpy()[covered] - lift
            first += len(kept[item])
    return Fragments(index, barycentrics, nearest)


def to_device_coordinates(vertices: Floating, depth: Floating, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return pytorch3d's normalised device coordinates, float32 [N, V, 3]: x left, y up, edges of the shorter side at -1 and 1."""
    shorter = min(height, width)
    x = (width - 1 - 2.0 * vertices[..., 0]) / shorter
    y = (height - 1 - 2.0 * vertices[..., 1]) / shorter
    return np.stack([x, y, depth], -1).astype(np.float32)


def usable(vertices: Floating, depth: Floating, triangles: Int32, *, cull: Cull) -> npt.NDArray[np.bool_]:
    """Return bool [F]: whether the definition keeps each triangle of one mesh ([V, 2], [V], [F, 3])."""
    corners, z = on_grid(vertices)[triangles], depth[triangles]
    with np.errstate(invalid="ignore", over="ignore"):
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
        kept = (np.abs(corners).sum((1, 2)) <= _LARGEST_SUM) & np.isfinite(z).all(1) & (area != 0.0)
        if cull == "back":
            kept &= area < 0.0
    return np.asarray(kept)
