"""Colours, skin and inside of the mouth from the person's own frames, for renderers that do not start from these frames.

A network that learned from other people draws lips, gums and teeth in colours of its own, and skin without the person's folds and
stubble. The mouth of the person's bank, warped to the target landmarks, has the right ones. With W this mouth, Y the rendered box,
G a Gaussian of COLOUR_SIGMA_PX and S one of SKIN_SIGMA_PX:

    C = G(W - Y)        Y' = Y + C - luma(C)        result = Y' + skin (W - Y' - S(W - Y'))

So light and shade are the renderer's, and beside the lips all that is finer than SKIN_SIGMA_PX is the person's: skin is 1 there,
and falls to 0 towards the lips, and where S(W - Y') is large. Between the lips, a renderer may draw teeth that the person does not
have, or smeared ones: W itself is shown there (RendererSpec.inside_from_bank). What a reference picture of somebody else shows is
not changed: no colours are given then.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_detail import LUMA_WEIGHTS

COLOUR_SIGMA_PX: Final = 1.6
"""Standard deviation of the Gaussian over which colours are given, box pixels: edges of lips and teeth are at the same points."""
SKIN_SIGMA_PX: Final = 8.0
"""Standard deviation of the Gaussian that divides the structure of skin from light and shade, box pixels."""
_MOST_DIFFERENCE: Final = 40.0
"""Levels of luma by which light and shade differ where no structure is given: they differ most where one is no skin."""
_LIPS_MARGIN: Final = np.ones((9, 9), np.uint8)
_LIPS_FEATHER_PX: Final = 2.0
"""Skin begins some pixels beside the lips: the renderer's lips keep their outlines."""
_FEATHER_PX: Final = 0.8


def with_own_colours(box: UInt8, own: UInt8, landmarks: Float32, *, inside: bool = False) -> UInt8:
    """Return a rendered box with the colours of the person's own frames, uint8 [160, 160, 3], RGB.

    Args:
        box: uint8 [160, 160, 3], RGB, rendered box.
        own: uint8 [160, 160, 3], RGB, mouth of the bank, warped to the same landmarks.
        landmarks: float32 [59, 2], target mouth-area landmarks, box pixels.
        inside: whether `own` is shown between the inner lips.
    """
    drawn = box.astype(np.float32)
    change = own.astype(np.float32) - drawn
    smooth = _blurred(change, COLOUR_SIGMA_PX)
    colour = smooth - (smooth @ LUMA_WEIGHTS)[..., None]
    coloured = drawn + colour
    rest = change - colour
    coarse = _coarse(rest)
    fits = np.clip(1.0 - np.abs(coarse @ LUMA_WEIGHTS) / _MOST_DIFFERENCE, 0.0, 1.0)
    lips = lip_pictures(landmarks)
    around = cv2.dilate(lips.max(axis=-1), _LIPS_MARGIN).astype(np.float32) / np.float32(255.0)
    skin = (1.0 - _blurred(around, _LIPS_FEATHER_PX)) * fits
    result = coloured + skin[..., None] * (rest - coarse)
    if inside:
        weight = _blurred(lips[..., 1].astype(np.float32) / np.float32(255.0), _FEATHER_PX)[..., None]
        result += weight * (own - result)
    return _picture(result)


def _coarse(picture: Float32) -> Float32:
    """Return a picture of the box without structures finer than SKIN_SIGMA_PX, computed at a quarter of the size."""
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    smooth = _blurred(np.asarray(small, np.float32), SKIN_SIGMA_PX / 4)
    return np.asarray(cv2.resize(smooth, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _blurred(picture: Float32, sigma: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _picture(levels: Float32) -> UInt8:
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)
