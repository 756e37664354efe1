"""Input of the network of `ugc`. Training and serving share it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.lip_pictures import lip_pictures

NUM_PICTURE_CHANNELS: Final = 9
"""Masked background RGB, texture RGB, mask, wanted lips, wanted inside of the mouth."""


def network_picture(background: UInt8, matched_texture: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Return the channels of one frame: uint8 [H, W, 9], in the order of NUM_PICTURE_CHANNELS.

    The background is black wherever the mask is above 0, its soft border included: what is to be replaced must not shine through.

    Args:
        background: uint8 [H, W, 3], the render box.
        matched_texture: uint8 [H, W, 3], in the light of the background (services.render.colour_match).
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], wanted landmarks, box pixels.
    """
    picture = np.empty((*mask.shape, NUM_PICTURE_CHANNELS), np.uint8)
    picture[..., :3] = cv2.bitwise_and(background, background, mask=(mask == 0).view(np.uint8))
    picture[..., 3:6] = matched_texture
    picture[..., 6] = mask
    picture[..., 7:] = lip_pictures(box_landmarks, len(mask))
    return picture
