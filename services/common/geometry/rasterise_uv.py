"""Texture space: the point of the surface that a texel shows, and the texture's value at a point of the surface.

Texture coordinates: u to the right and v **down**, 0..1 over the whole texture, so texel (row, column) is centred at
((column + 0.5) / width, (row + 0.5) / height). Files with v up (OBJ) are turned round when they are loaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Floating, Int32
from services.common.geometry.fragments import Fragments
from services.common.geometry.rasterise import Backend, interpolate, rasterise


class UvMap(NamedTuple):
    """Unwrapped surface of a mesh.

    Attributes:
        fragments: fragments of one picture, the texture: each texel's triangle, and barycentrics on the surface.
        triangles: int32 [F, 3], rows of the vertices.
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
    """

    fragments: Fragments
    triangles: Int32
    uv: Floating
    corners: Int32

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the texture, texels."""
        return self.fragments.triangle_index.shape[1], self.fragments.triangle_index.shape[2]

    def positions(self, attributes: Floating) -> Float32:
        """Return attributes of vertices at every texel: float32 [N, H, W, C]; texels without surface are 0.

        For positions of vertices the result is a position map.

        Args:
            attributes: [N, V, C].
        """
        maps = [interpolate(self.fragments, each[None], self.triangles) for each in attributes]
        return (
            np.concatenate(maps)
            if maps
            else np.zeros((0, *self.fragments.triangle_index.shape[1:], attributes.shape[2]), np.float32)
        )


def uv_map(uv: Floating, corners: Int32, triangles: Int32, height: int, width: int, *, backend: Backend = "numba") -> UvMap:
    """Rasterise the mesh in texture space. Where triangles overlap, the triangle with the lowest index is kept.

    Args:
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
        triangles: int32 [F, 3], rows of the vertices.
        height: height of the texture, texels.
        width: width of the texture, texels.
        backend: as in `rasterise`.

    Raises:
        ValueError: shapes do not match, or a corner names a row that does not exist.
    """
    if corners.shape != triangles.shape:
        raise ValueError(f"{list(corners.shape)} corners don't fit {list(triangles.shape)} triangles")
    texels = texels_of(uv, height, width)[None]
    flat = np.zeros(texels.shape[:2])
    return UvMap(rasterise(texels, flat, corners, height, width, perspective=False, backend=backend), triangles, uv, corners)


def texels_of(uv: Floating, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return texture coordinates [..., 2] converted to texels (centres at integers), float64."""
    return np.asarray(uv, dtype=np.float64) * np.array([width, height], np.float64) - 0.5


def sample_texture(texture: npt.NDArray[np.generic], uv: Floating) -> Float32:
    """Return the texture at points of the surface, float32 [..., C], by bilinear interpolation.

    Points beyond the outermost texel centres have the value of the nearest border.

    Args:
        texture: [H, W, C], uint8 or float.
        uv: [..., 2], texture coordinates, finite.
    """
    height, width = texture.shape[:2]
    return sample_picture(texture, texels_of(uv, height, width))


def sample_picture(picture: npt.NDArray[np.generic], pixels: Floating) -> Float32:
    """Return a picture [H, W, C] at pixels [..., 2], float32 [..., C], by bilinear interpolation.

    Points beyond the outermost pixel centres have the value of the nearest border.
    """
    height, width = picture.shape[:2]
    x, y = np.clip(pixels[..., 0], 0.0, width - 1.0), np.clip(pixels[..., 1], 0.0, height - 1.0)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    values = picture.astype(np.float32, copy=False)
    upper = values[top, left] * (1.0 - across) + values[top, right] * across
    lower = values[bottom, left] * (1.0 - across) + values[bottom, right] * across
    return np.asarray(upper * (1.0 - down) + lower * down, dtype=np.float32)
