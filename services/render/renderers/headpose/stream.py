"""Drawer of `headpose`: each frame with the two before it, from the drawn face and key pictures.

face = rendered frame + residual(window of rendered frames, mask, wanted lips, key pictures; FiLM state, memory items),
then its detail as strong as that of the key pictures (services.render.renderers.headpose.detail)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Array, UInt8
from services.common.face.lip_pictures import lip_pictures
from services.render.drawer import Shown, drawn_face, with_face, without_dots
from services.render.frame_window import Window
from services.render.key_pictures import unpacked
from services.render.renderer import StreamSetup
from services.render.renderers.headpose.detail import with_detail
from services.render.renderers.headpose.inputs import SHOWN_KEYS, drawn_picture, rendered_frame, shown_keys, still_frame
from services.render.renderers.headpose.mouth_interior import mean_mouth
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import RenderFrame


class Prepared(NamedTuple):
    """Pictures of a frame that the window keeps.

    Attributes:
        rendered: uint8 [H, W, 3], the rendered frame r_t.
        keys: uint8 [SHOWN_KEYS, H, W, 3], key pictures, moved to the frame. Their detail is the measure of the drawn face's detail.
        shown: uint8 [SHOWN_KEYS, H, W, 3], what the network sees in the place of key pictures.
    """

    rendered: UInt8
    keys: UInt8
    shown: UInt8


class HeadposeDrawer:
    """See services.render.drawer.FrameDrawer."""

    def __init__(self, setup: StreamSetup) -> None:
        actor, self._keys = unpacked(setup.state)
        self._mean = mean_mouth(setup.model.path.parent)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: actor}

    def prepare(self, frame: RenderFrame) -> Prepared:
        """See FrameDrawer.prepare."""
        assert frame.texture is not None  # the renderer declares this input
        keys = shown_keys(self._keys, frame.background, frame.mask, frame.box_landmarks, self._mean)
        if not self._keys.one_picture:
            return Prepared(rendered_frame(frame.background, frame.mask, frame.texture, keys[0]), keys, keys)
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))
        rendered = still_frame(frame.background, frame.mask, frame.texture, keys[0], lips)
        return Prepared(rendered, keys, np.stack([rendered] * SHOWN_KEYS))

    def show(self, window: Window[Prepared]) -> Shown:
        """See FrameDrawer.show."""
        frame, now = window.frame, window.now
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))
        picture = drawn_picture([item.rendered for item in window.items], frame.mask, lips, now.shown)
        return Shown({INPUT_PICTURES: picture}, now.rendered)

    def draw(self, window: Window[Prepared], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameDrawer.draw."""
        frame = window.frame
        face = with_face(frame, without_dots(drawn_face(shown.base, outputs[OUTPUT_RESIDUAL])))
        return with_detail(face, window.now.keys, frame.mask)
