"""Appearance deflicker (paper `everybody`, App. G, Eq. 7; after Bonneel et al. 2015).

    F(O_t) = (4 pi^2 f^2 F(P_t) + lambda_t F(Warp(O_t-1))) / (4 pi^2 f^2 + lambda_t),        lambda_t = exp(-d_t)

P are drawn pictures, O are the results, F is the Fourier transform, f is the frequency in cycles per pixel, d_t is how far the
mouth's centre moved. Low frequencies come from the frame before, the more so the less the mouth moves. Fine detail comes from the
new frame. The mean (f = 0) comes from the frame before alone, so the pictures given here must not hold changing light: give
differences from a picture that follows the light.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8

_FLOW_REACH: Final = cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST


def deflickered(drawn: Float32, warped_before: Float32, moved_px: float) -> Float32:
    """Return O_t of Eq. 7: float32 [H, W, C].

    Args:
        drawn: float32 [H, W, C], P_t.
        warped_before: float32 [H, W, C], Warp(O_t-1).
        moved_px: d_t >= 0, pixels.
    """
    rows, columns = drawn.shape[:2]
    squared = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2
    own = (4.0 * np.pi**2 * squared)[..., None]
    before = float(np.exp(-moved_px))
    spectrum = (own * np.fft.rfft2(drawn, axes=(0, 1)) + before * np.fft.rfft2(warped_before, axes=(0, 1))) / (own + before)
    return np.asarray(np.fft.irfft2(spectrum, s=(rows, columns), axes=(0, 1)), dtype=np.float32)


def warped_by_flow(before: Float32, from_picture: UInt8, to_picture: UInt8) -> Float32:
    """Return Warp of Eq. 7: `before`, moved by the optical flow between two drawn pictures (Kroeger et al. 2016): float32 [H, W,
    C].

    Args:
        before: float32 [H, W, C], O_t-1.
        from_picture: uint8 [H, W, 3], P_t-1.
        to_picture: uint8 [H, W, 3], P_t.
    """
    old, new = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (from_picture, to_picture))
    flow = cv2.DISOpticalFlow.create(_FLOW_REACH).calc(new, old, np.zeros((*new.shape, 2), np.float32))
    rows, columns = np.mgrid[: new.shape[0], : new.shape[1]].astype(np.float32)
    moved = cv2.remap(before, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)
