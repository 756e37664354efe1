"""Drawer of `hetero`: each frame with two before and two after it, from landmarks and a reference picture.

face = reference picture + network(composites t-2 to t+2, mask, reference picture; actor's state)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.common.array_types import Array, UInt8
from services.render.drawer import Shown, drawn_face, with_face, without_dots
from services.render.frame_window import Window
from services.render.renderer import StreamSetup
from services.render.renderers.hetero.inputs import REFERENCE, composite, window_picture
from services.render.renderers.hetero.light import in_light_of
from services.render.renderers.hetero.reference import unpacked, with_other_reference
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import RenderFrame


class HeteroDrawer:
    """See services.render.drawer.FrameDrawer. The window keeps each frame's composite, uint8 [H, W, 3].

    If the stream is opened with a reference picture, this picture replaces the actor's own (appearance transfer, Sec. 4.5.2). It
    comes in another light, so each frame's light multiplies it.
    """

    def __init__(self, setup: StreamSetup) -> None:
        state, reference = unpacked(setup.state)
        if setup.reference is not None:
            state, reference = with_other_reference(state), setup.reference
        self._reference: Final = reference
        self._transferred: Final = setup.reference is not None
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: state}

    def prepare(self, frame: RenderFrame) -> UInt8:
        """See FrameDrawer.prepare."""
        return composite(frame.background, frame.mask, frame.box_landmarks)

    def show(self, window: Window[UInt8]) -> Shown:
        """See FrameDrawer.show."""
        frame = window.frame
        reference = in_light_of(self._reference, frame.background, frame.mask) if self._transferred else self._reference
        picture = window_picture(window.items, frame.background, frame.mask, frame.box_landmarks, reference)
        return Shown({INPUT_PICTURES: picture}, picture[..., REFERENCE])

    def draw(self, window: Window[UInt8], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameDrawer.draw."""
        return with_face(window.frame, without_dots(drawn_face(shown.base, outputs[OUTPUT_RESIDUAL])))
