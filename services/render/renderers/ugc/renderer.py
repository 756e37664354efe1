"""Renderer of `ugc`: each frame by itself, from a warped texture.

face = texture + residual(masked background, texture, mask, lips; state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.common.face.drawing import lip_pictures
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.key_pictures import match_colour
from services.render.renderer import NetworkInputs, StreamSetup, Window, with_residual
from services.render.types import RenderFrame

NUM_PICTURE_CHANNELS: Final = 9
"""Masked background RGB, texture RGB, mask, target lips, target inside of the mouth."""


def network_picture(background: UInt8, matched_texture: UInt8, mask: UInt8, box_landmarks: Float32) -> UInt8:
    """Return the channels of one frame: uint8 [H, W, 9], in the order of NUM_PICTURE_CHANNELS.

    The background is black wherever the mask is above 0, its soft border included: what is to be replaced must not shine through.

    Args:
        background: uint8 [H, W, 3], the render box.
        matched_texture: uint8 [H, W, 3], in the light of the background (services.render.key_pictures).
        mask: uint8 [H, W], lower-face mask.
        box_landmarks: float32 [59, 2], target landmarks, box pixels.
    """
    picture = np.empty((*mask.shape, NUM_PICTURE_CHANNELS), np.uint8)
    picture[..., :3] = cv2.bitwise_and(background, background, mask=(mask == 0).view(np.uint8))
    picture[..., 3:6] = matched_texture
    picture[..., 6] = mask
    picture[..., 7:] = lip_pictures(box_landmarks, len(mask))
    return picture


class UgcRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps the texture in the light of the footage, uint8 [H, W, 3]."""

    def __init__(self, setup: StreamSetup) -> None:
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: setup.state}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameRenderer.prepare."""
        assert frame.texture is not None  # the renderer declares this input
        return match_colour(frame.texture, frame.background, frame.mask)

    def network_inputs(self, window: Window[UInt8]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame, texture = window.frame, window.now
        return NetworkInputs({INPUT_PICTURES: network_picture(frame.background, texture, frame.mask, frame.box_landmarks)}, texture)

    def draw(self, window: Window[UInt8], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        return with_residual(window.frame, inputs.base, outputs[OUTPUT_RESIDUAL])
