"""Texture space: which point of the surface a texel shows, and the texture's value at a point of the surface.

Texture coordinates: u to the right and v **down**, 0..1 over the whole texture, so texel (row, column) is centred at
((column + 0.5) / width, (row + 0.5) / height). Files with v up (OBJ) are turned round when they are loaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.geometry.rasterise import Backend, Float32, Floats, Fragments, Int32, interpolate, rasterise


class UvMap(NamedTuple):
    """The unwrapped surface.

    Attributes:
        fragments: of one picture, the texture: which triangle a texel shows, and its barycentrics on the surface.
        triangles: int32 [F, 3], the mesh's own.
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
    """

    fragments: Fragments
    triangles: Int32
    uv: Floats
    corners: Int32

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the texture, texels."""
        return self.fragments.triangle_index.shape[1], self.fragments.triangle_index.shape[2]

    def positions(self, attributes: Floats) -> Float32:
        """Attributes of vertices at every texel (a position map, for positions): float32 [N, H, W, C]; texels without surface 0.

        Args:
            attributes: [N, V, C].
        """
        maps = [interpolate(self.fragments, each[None], self.triangles) for each in attributes]
        return (
            np.concatenate(maps)
            if maps
            else np.zeros((0, *self.fragments.triangle_index.shape[1:], attributes.shape[2]), np.float32)
        )


def uv_map(uv: Floats, corners: Int32, triangles: Int32, height: int, width: int, *, backend: Backend = "numba") -> UvMap:
    """Rasterise the mesh in texture space. Where triangles overlap there, the one with the lowest index is kept.

    Args:
        uv: [A, 2], texture coordinates.
        corners: int32 [F, 3], rows of `uv`.
        triangles: int32 [F, 3], rows of the vertices.
        height: of the texture, texels.
        width: of the texture, texels.
        backend: as in `rasterise`.

    Raises:
        ValueError: shapes that don't fit, a corner that is not there.
    """
    if corners.shape != triangles.shape:
        raise ValueError(f"{list(corners.shape)} corners don't fit {list(triangles.shape)} triangles")
    texels = texels_of(uv, height, width)[None]
    flat = np.zeros(texels.shape[:2])
    return UvMap(rasterise(texels, flat, corners, height, width, perspective=False, backend=backend), triangles, uv, corners)


def texels_of(uv: Floats, height: int, width: int) -> npt.NDArray[np.float64]:
    """Texture coordinates [..., 2] as texels, centres at integers: float64."""
    return np.asarray(uv, dtype=np.float64) * np.array([width, height], np.float64) - 0.5


def sample_texture(texture: npt.NDArray[np.generic], uv: Floats) -> Float32:
    """The texture at points of the surface, bilinear: float32 [..., C]. Beyond the outermost centres their value holds.

    Args:
        texture: [H, W, C], uint8 or float.
        uv: [..., 2], texture coordinates, finite.
    """
    height, width = texture.shape[:2]
    return sample_picture(texture, texels_of(uv, height, width))


def sample_picture(picture: npt.NDArray[np.generic], pixels: Floats) -> Float32:
    """A picture [H, W, C] at pixels [..., 2], bilinear: float32 [..., C]. Beyond the outermost centres their value holds."""
    height, width = picture.shape[:2]
    x, y = np.clip(pixels[..., 0], 0.0, width - 1.0), np.clip(pixels[..., 1], 0.0, height - 1.0)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    values = picture.astype(np.float32, copy=False)
    upper = values[top, left] * (1.0 - across) + values[top, right] * across
    lower = values[bottom, left] * (1.0 - across) + values[bottom, right] * across
    return np.asarray(upper * (1.0 - down) + lower * down, dtype=np.float32)
