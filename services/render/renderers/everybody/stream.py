"""Drawer of `everybody`: each frame with the six before it, from landmarks and key pictures.

face = first key picture + residual(window of masked footage and heatmaps, mask, key pictures; FiLM state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.common.array_types import Array, UInt8
from services.render.drawer import Shown, drawn_face, with_face, without_dots
from services.render.frame_window import Window
from services.render.key_pictures import matched_keys, unpacked
from services.render.renderer import StreamSetup
from services.render.renderers.everybody.inputs import frame_channels, window_picture
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import RenderFrame


class EverybodyDrawer:
    """See services.render.drawer.FrameDrawer. The window keeps each frame's own channels, uint8 [H, W, FRAME_CHANNELS]."""

    def __init__(self, setup: StreamSetup) -> None:
        film, self._keys = unpacked(setup.state)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: film}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameDrawer.prepare."""
        return frame_channels(frame.background, frame.mask, frame.box_landmarks, frame.frame_index)

    def show(self, window: Window[UInt8]) -> Shown:
        """See FrameDrawer.show."""
        frame = window.frame
        keys = matched_keys(self._keys, frame.background, frame.mask, frame.box_landmarks)
        return Shown({INPUT_PICTURES: window_picture(window.items, frame.mask, keys)}, keys[0])

    def draw(self, window: Window[UInt8], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameDrawer.draw."""
        return with_face(window.frame, without_dots(drawn_face(shown.base, outputs[OUTPUT_RESIDUAL])))
