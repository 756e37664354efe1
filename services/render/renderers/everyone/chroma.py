"""Chroma of a drawn face: smooth, as in film, whose chroma has half the resolution of its luma.

The network mixes 16 features into three colours. Between teeth, lips and the dark of the mouth the mixtures of the colours change
at slightly different places, and draw green and violet fringes a few pixels wide.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32

_SIGMA: Final = 2.0


def with_smooth_chroma(face: Float32) -> Float32:
    """Return a drawn face with the same luma and a smooth chroma: float32 [H, W, 3], grey levels.

    Args:
        face: float32 [H, W, 3], RGB, grey levels.
    """
    smooth = cv2.GaussianBlur(face, (0, 0), _SIGMA)
    luma = cv2.cvtColor(face - smooth, cv2.COLOR_RGB2GRAY)
    return np.asarray(smooth + luma[..., None], np.float32)
