"""Colours and inside of the mouth from the person's own frames, for renderers that do not start from these frames.

A network that learned from other people draws lips, gums and teeth in colours of its own. The mouth of the person's bank, warped to
the target landmarks, has the right ones. With W this mouth, Y the rendered box and G a Gaussian of COLOUR_SIGMA_PX:

    C = G(W - Y)        result = Y + C - luma(C)

So light, shade and structure are the renderer's. A renderer that sees no open mouth of the person draws teeth that the person does
not have. There, W itself is shown between the target inner lips (RendererSpec.inside_from_bank). What a reference picture of
somebody else shows is not changed: no colours are given then.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_detail import LUMA_WEIGHTS

COLOUR_SIGMA_PX: Final = 1.6
"""Standard deviation of the Gaussian over which colours are given, box pixels: edges of lips and teeth are at the same places."""
_FEATHER_PX: Final = 0.8


def with_own_colours(box: UInt8, own: UInt8, landmarks: Float32 | None = None) -> UInt8:
    """Return a rendered box with the colours of the person's own frames, uint8 [160, 160, 3], RGB.

    Args:
        box: uint8 [160, 160, 3], RGB, rendered box.
        own: uint8 [160, 160, 3], RGB, mouth of the bank, warped to the same landmarks.
        landmarks: float32 [59, 2], target mouth-area landmarks, box pixels: `own` is shown between the inner lips; None: nowhere.
    """
    drawn = box.astype(np.float32)
    change = own.astype(np.float32) - drawn
    smooth = np.asarray(cv2.GaussianBlur(change, (0, 0), COLOUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE), np.float32)
    colour = smooth - (smooth @ LUMA_WEIGHTS)[..., None]
    if landmarks is None:
        return _picture(drawn + colour)
    inside = lip_pictures(landmarks)[..., 1].astype(np.float32) / np.float32(255.0)
    weight = np.asarray(cv2.GaussianBlur(inside, (0, 0), _FEATHER_PX, borderType=cv2.BORDER_REPLICATE), np.float32)[..., None]
    return _picture(drawn + colour + weight * (change - colour))


def _picture(levels: Float32) -> UInt8:
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)
