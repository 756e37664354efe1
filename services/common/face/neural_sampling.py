"""Bilinear sampling of a texture with many channels, compiled by numba."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.geometry.kernels import kernel


@kernel
def sample_pixels(texture: UInt8, uv: Float32, result: Float32) -> None:
    """Compute a texture's values, divided by 255, at texture coordinates.

    Points beyond the outermost texel centres have the value of the nearest border.

    Args:
        texture: uint8 [S, T, C].
        uv: float32 [P, 2], texture coordinates, at most 1; negative: the result is 0.
        result: float32 [P, C], output.
    """
    height, width, channels = texture.shape
    for pixel in range(uv.shape[0]):
        if not (uv[pixel, 0] >= 0.0 and uv[pixel, 1] >= 0.0):
            for channel in range(channels):
                result[pixel, channel] = 0.0
            continue
        x = min(max(uv[pixel, 0] * width - 0.5, 0.0), width - 1.0)
        y = min(max(uv[pixel, 1] * height - 0.5, 0.0), height - 1.0)
        left, top = int(x), int(y)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        across, down = np.float32(x - left), np.float32(y - top)
        weight0 = (np.float32(1.0) - across) * (np.float32(1.0) - down) / np.float32(255.0)
        weight1 = across * (np.float32(1.0) - down) / np.float32(255.0)
        weight2 = (np.float32(1.0) - across) * down / np.float32(255.0)
        weight3 = across * down / np.float32(255.0)
        for channel in range(channels):
            result[pixel, channel] = (
                weight0 * np.float32(texture[top, left, channel])
                + weight1 * np.float32(texture[top, right, channel])
                + weight2 * np.float32(texture[bottom, left, channel])
                + weight3 * np.float32(texture[bottom, right, channel])
            )


def warm_up() -> None:
    """Compile the kernel (about a quarter of a second), so that the first frame does not wait for the compiler."""
    sample_pixels(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 2), np.float32), np.empty((1, 1), np.float32))
