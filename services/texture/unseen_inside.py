"""The inside of a mouth that the footage never shows open.

A warp opens shut lips only by stretching the line between them, so such a person would never be seen to speak. The inside is drawn
dark instead, with soft borders. Teeth are not drawn, because the footage does not show the person's teeth.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.landmarks import mouth_opening, never_open
from services.common.face.lip_pictures import lip_pictures
from services.common.face.mouth_bank import MouthBank

_SHADE: Final = np.array([0.26, 0.2, 0.2], np.float32)
"""Colour of the inside as a share of the lips' mean colour: red, green, blue."""
_FIRST_PX: Final = 0.7
_WHOLE_PX: Final = 2.5
"""Openings from which on the inside shows, and shows in full, box pixels: lips that hardly part show no dark line."""
_SOFT_PX: Final = 0.6
"""Softness of the border, the standard deviation of a Gaussian, box pixels."""


class UnseenInside:
    """Draws the inside of one person's mouth where the bank has none.

    Args:
        bank: the person's mouths.
    """

    def __init__(self, bank: MouthBank) -> None:
        self.needed = never_open(bank.mouth)
        self._colour = _SHADE * _lip_colour(bank) if self.needed else np.zeros(3, np.float32)

    def drawn(self, texture: UInt8, wanted: Float32) -> UInt8:
        """Return a texture with the inside of the mouth; the same texture if the bank shows an inside.

        Args:
            texture: uint8 [160, 160, 3], RGB.
            wanted: float32 [M, 2], wanted landmarks, the mouth area first, box pixels.
        """
        if not self.needed:
            return texture
        opening = float(mouth_opening(wanted))
        share = np.clip((opening - _FIRST_PX) / (_WHOLE_PX - _FIRST_PX), 0.0, 1.0)
        if not share:
            return texture
        weight = share * _soft(lip_pictures(wanted)[..., 1])[..., None]
        return np.asarray(np.rint(texture + weight * (self._colour - texture)), np.uint8)


def _lip_colour(bank: MouthBank) -> Float32:
    """Return the mean colour of the lips in the picture with the most ordinary mouth, float32 [3]."""
    lips = _soft(lip_pictures(bank.box_landmarks[bank.medoid])[..., 0])
    return np.asarray(np.average(bank.boxes[bank.medoid].reshape(-1, 3), axis=0, weights=lips.ravel() + 1e-6), np.float32)


def _soft(mask: UInt8) -> Float32:
    """Return a mask, uint8 [160, 160], with soft borders: float32, 0 to 1."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32) / 255.0, (0, 0), _SOFT_PX), np.float32)
