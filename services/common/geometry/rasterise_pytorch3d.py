"""The rasteriser on pytorch3d, for machines where pytorch3d is installed (a package with CUDA kernels that is not on PyPI).

pytorch3d differs from the definition in rasterise.py in three points. A centre exactly on an edge may belong to no triangle or to
either triangle. The order of equally near triangles is not specified. All arithmetic is in float32. This module decides by the
rules of rasterise.py which triangles are left out.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from services.common.array_types import Floating, Int32
from services.common.errors import BackendUnavailable
from services.common.geometry.fragments import Cull, Fragments, on_grid

_LARGEST_SUM = float(1 << 28)


def is_installed() -> bool:
    """Return whether pytorch3d can be imported."""
    return importlib.util.find_spec("pytorch3d") is not None


def rasterise_with_pytorch3d(
    vertices: Floating,
    depth: Floating,
    triangles: Int32,
    height: int,
    width: int,
    *,
    perspective: bool,
    cull: Cull,
    near: float,
) -> Fragments:
    """Return the fragments, as `rasterise` does, on the GPU if torch finds one. The caller has checked the arguments.

    Raises:
        BackendUnavailable: pytorch3d is not installed.
    """
    if not is_installed():
        raise BackendUnavailable("pytorch3d is not installed; the backend numba needs nothing but numba")
    import torch
    from pytorch3d.renderer.mesh import rasterize_meshes
    from pytorch3d.structures import Meshes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # pytorch3d drops depth below zero. Without perspective only differences of depth matter.
    lift = 0.0 if perspective else 1.0 - float(depth[np.isfinite(depth)].min(initial=0.0))
    space = to_device_coordinates(vertices, depth + lift, height, width)
    kept = [
        np.flatnonzero(usable(points, z, triangles, perspective=perspective, cull=cull, near=near))
        for points, z in zip(vertices, depth, strict=True)
    ]
    shown = [item for item, rows in enumerate(kept) if len(rows)]
    index = np.full((len(vertices), height, width), -1, np.int32)
    barycentrics = np.zeros((len(vertices), height, width, 3), np.float32)
    nearest = np.full((len(vertices), height, width), np.inf, np.float32)
    if shown:
        meshes = Meshes(
            [torch.from_numpy(np.nan_to_num(space[item])).to(device) for item in shown],
            [torch.from_numpy(triangles[kept[item]].astype(np.int64)).to(device) for item in shown],
        )
        faces, z_buffer, weights, _ = rasterize_meshes(
            meshes,
            image_size=(height, width),
            blur_radius=0.0,
            faces_per_pixel=1,
            perspective_correct=perspective,
            clip_barycentric_coords=False,
            cull_backfaces=False,
            bin_size=0,  # pytorch3d's bins overflow silently on dense meshes
        )
        packed = faces[..., 0].cpu().numpy()
        first = 0
        for place, item in enumerate(shown):
            covered = packed[place] >= 0
            index[item][covered] = kept[item][packed[place][covered] - first]
            barycentrics[item][covered] = weights[place, ..., 0, :].cpu().numpy()[covered]
            nearest[item][covered] = z_buffer[place, ..., 0].cpu().numpy()[covered] - lift
            first += len(kept[item])
    return Fragments(index, barycentrics, nearest)


def to_device_coordinates(vertices: Floating, depth: Floating, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return pytorch3d's normalised device coordinates, float32 [N, V, 3]: x left, y up, edges of the shorter side at -1 and 1."""
    shorter = min(height, width)
    x = (width - 1 - 2.0 * vertices[..., 0]) / shorter
    y = (height - 1 - 2.0 * vertices[..., 1]) / shorter
    return np.stack([x, y, depth], -1).astype(np.float32)


def usable(
    vertices: Floating, depth: Floating, triangles: Int32, *, perspective: bool, cull: Cull, near: float
) -> npt.NDArray[np.bool_]:
    """Return bool [F]: whether the definition keeps each triangle of one mesh ([V, 2], [V], [F, 3])."""
    corners, z = on_grid(vertices)[triangles], depth[triangles]
    with np.errstate(invalid="ignore", over="ignore"):
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
        kept = (np.abs(corners).sum((1, 2)) <= _LARGEST_SUM) & np.isfinite(z).all(1) & (area != 0.0)
        if perspective:
            kept &= z.min(1) > near
        if cull == "back":
            kept &= area < 0.0
    return np.asarray(kept)
