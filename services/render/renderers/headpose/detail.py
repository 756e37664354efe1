"""Fine detail of a drawn face, amplified until it is as strong as in the person's footage (in the spirit of unsharp masking).

    face + a * (face - blurred face),        0 <= a <= 1.5

with the one `a` at which the Laplacian inside the lower face is as strong as in the key pictures, which were filmed and moved to
the same landmarks. A face that is as sharp as the key pictures stays as it is. Each frame is treated by itself.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8

_BLUR_SIGMA: Final = 1.2
_MOST: Final = 1.5
_SHARE: Final = 0.9
"""Wanted share of the key pictures' strength: a moved picture of another moment has edges in the wrong places too."""
_EROSION: Final = np.ones((9, 9), np.uint8)


def with_detail(face: UInt8, keys: UInt8, mask: UInt8) -> UInt8:
    """Return a drawn face with the strength of detail of key pictures: uint8 [H, W, 3], unchanged outside the mask.

    Args:
        face: uint8 [H, W, 3], the drawn face.
        keys: uint8 [K, H, W, 3], filmed, moved to the same landmarks.
        mask: uint8 [H, W], lower-face mask.
    """
    # The seam between the drawn face and the footage is no detail of the face.
    inside = cv2.erode((mask > 0).view(np.uint8), _EROSION) > 0
    if not inside.any():
        return face
    picture = face.astype(np.float32)
    fine = picture - cv2.GaussianBlur(picture, (0, 0), _BLUR_SIGMA)
    drawn, added = _laplacian(picture)[inside], _laplacian(fine)[inside]
    wanted = _SHARE * float(np.mean([np.square(_laplacian(key.astype(np.float32))[inside]).mean() for key in keys]))
    # |drawn + a added|^2 = wanted, for the positive root.
    square, mixed, own = (float(np.mean(one * other)) for one, other in ((added, added), (drawn, added), (drawn, drawn)))
    if own >= wanted or square <= 0.0:
        return face
    amount = min((-mixed + np.sqrt(max(mixed * mixed + square * (wanted - own), 0.0))) / square, _MOST)
    weight = (amount / 255.0) * mask[..., None].astype(np.float32)
    return np.asarray(np.clip(np.rint(picture + weight * fine), 0, 255), dtype=np.uint8)


def _laplacian(picture: Float32) -> Float32:
    return np.asarray(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_32F), np.float32)
