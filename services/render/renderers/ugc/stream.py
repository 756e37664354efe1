"""Drawer of `ugc`: each frame by itself, from a warped texture.

face = texture + residual(masked background, texture, mask, lips; state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.common.array_types import Array, UInt8
from services.render.colour_match import match_colour
from services.render.drawer import Shown, with_residual
from services.render.frame_window import Window
from services.render.renderer import StreamSetup
from services.render.renderers.ugc.inputs import network_picture
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import RenderFrame


class UgcDrawer:
    """See services.render.drawer.FrameDrawer. The window keeps the texture in the light of the footage, uint8 [H, W, 3]."""

    def __init__(self, setup: StreamSetup) -> None:
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: setup.state}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameDrawer.prepare."""
        assert frame.texture is not None  # the renderer declares this input
        return match_colour(frame.texture, frame.background, frame.mask)

    def show(self, window: Window[UInt8]) -> Shown:
        """See FrameDrawer.show."""
        frame, texture = window.frame, window.now
        return Shown({INPUT_PICTURES: network_picture(frame.background, texture, frame.mask, frame.box_landmarks)}, texture)

    def draw(self, window: Window[UInt8], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameDrawer.draw."""
        return with_residual(window.frame, shown.base, outputs[OUTPUT_RESIDUAL])
