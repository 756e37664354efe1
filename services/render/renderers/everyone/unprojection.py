"""First texture of a person: frames brought back to the texture in the first three channels, small noise in the others.

The paper begins with random textures. Random RGB would have to be learned from nothing for every new person, where a few frames
give RGB at once. Texels that no frame shows get the colours of their surroundings (Gortler et al. 1996, "pull-push").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.neural_texture import FACE_ROWS, NUM_CHANNELS, TEXTURE_SIZE

_LEVELS: Final = 8
_NOISE_LEVELS: Final = 2.0
_MIDDLE: Final = 128.0
_FEWEST: Final = 1e-3
_OUTLINE: Final = np.ones((5, 5), np.uint8)
_FACE_SIGMA: Final = 0.5
_MOUTH_SIGMA: Final = 1.6
"""Blur of colours and weights, texels. A pixel is about one texel wide on the face and two in the mouth, and neighbouring texels
must not show different frames."""
_CERTAIN: Final = 4.0
"""Pixels of a texel from which on its own colour counts alone."""


def first_texture(frames: Iterable[tuple[UInt8, Float32]], seed: int) -> UInt8:
    """Return the texture of frames: uint8 [256, 256, 16], 1..255.

    Args:
        frames: pictures, uint8 [160, 160, 3], with texture coordinates, float32 [160, 160, 2] in 0..1, negative where there is no
            face.
        seed: random seed of the noise.
    """
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 4), np.float32)
    for picture, uv in frames:
        total += _splat(picture, uv)
    texture = np.empty((TEXTURE_SIZE, TEXTURE_SIZE, NUM_CHANNELS), np.float32)
    # Skin must not run into the mouth, nor the mouth into the skin.
    for rows, sigma in ((slice(0, FACE_ROWS), _FACE_SIGMA), (slice(FACE_ROWS, TEXTURE_SIZE), _MOUTH_SIGMA)):
        texture[rows, :, :3] = _filled(np.asarray(cv2.GaussianBlur(total[rows], (0, 0), sigma), np.float32))
    rng = np.random.default_rng((seed, 2))
    texture[..., 3:] = _MIDDLE + rng.normal(0.0, _NOISE_LEVELS, texture[..., 3:].shape)
    return np.asarray(np.clip(np.rint(texture), 1, 255), dtype=np.uint8)


def _splat(picture: UInt8, uv: Float32) -> Float32:
    """Return colours times weights, and weights: float32 [256, 256, 4]. A pixel counts at its four nearest texels."""
    # At the outline, pixels show the background too.
    covered = cv2.erode((uv[..., 0] >= 0.0).view(np.uint8), _OUTLINE) > 0
    places = np.clip(uv[covered] * TEXTURE_SIZE - 0.5, 0.0, TEXTURE_SIZE - 1.001)
    corner = places.astype(np.intp)
    share = places - corner
    values = np.concatenate([picture[covered].astype(np.float32), np.ones((len(places), 1), np.float32)], axis=1)
    flat = np.zeros((TEXTURE_SIZE * TEXTURE_SIZE, 4))
    for down in (0, 1):
        for across in (0, 1):
            weight = np.abs(1 - across - share[:, 0]) * np.abs(1 - down - share[:, 1])
            index = (corner[:, 1] + down) * TEXTURE_SIZE + corner[:, 0] + across
            for channel in range(4):
                flat[:, channel] += np.bincount(index, weight * values[:, channel], len(flat))
    return flat.reshape(TEXTURE_SIZE, TEXTURE_SIZE, 4).astype(np.float32)


def _filled(total: Float32) -> Float32:
    """Return colours, float32 [H, W, 3], with empty texels filled from coarser and coarser means."""
    pyramid = [total]
    for _ in range(_LEVELS):
        last = pyramid[-1]
        size = max(1, last.shape[1] // 2), max(1, last.shape[0] // 2)
        # Sums, so that a coarse texel counts as known when one texel below it is known.
        share = last.shape[0] * last.shape[1] / (size[0] * size[1])
        pyramid.append(np.asarray(cv2.resize(last, size, interpolation=cv2.INTER_AREA) * share, np.float32))
    colours: Float32 = np.full((*pyramid[-1].shape[:2], 3), _MIDDLE, np.float32)
    for level in reversed(pyramid):
        size = level.shape[1], level.shape[0]
        coarse = cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR).reshape(*level.shape[:2], 3)
        weight = level[..., 3:]
        known = np.minimum(weight / _CERTAIN, 1.0)
        colours = np.asarray(known * level[..., :3] / np.maximum(weight, _FEWEST) + (1.0 - known) * coarse, np.float32)
    return colours
