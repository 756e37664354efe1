"""Drawer of `everyone`: each frame with its neighbours, from features of the actor's neural texture and from speech.

face = first three features in the light of the frame + residual(window, reference, lips, speech; offset of W),
then smooth chroma (chroma.py) and the filmed border (border.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Array, Bool, UInt8
from services.common.face.lip_pictures import lip_pictures
from services.render.drawer import Shown, drawn_face, with_face, without_dots
from services.render.frame_window import Window
from services.render.renderer import StreamSetup
from services.render.renderers.everyone.actor_state import unpacked
from services.render.renderers.everyone.border import with_filmed_border
from services.render.renderers.everyone.chroma import with_smooth_chroma
from services.render.renderers.everyone.inputs import (
    FilledFrame,
    feature_bytes,
    filled_frame,
    ground_picture,
    network_picture,
    require_forms,
)
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import RenderFrame


class Prepared(NamedTuple):
    """What the window keeps of a frame: its channels, and where the drawn face covers the box, bool [H, W]."""

    filled: FilledFrame
    covered: Bool


class EveryoneDrawer:
    """See services.render.drawer.FrameDrawer."""

    def __init__(self, setup: StreamSetup) -> None:
        style, self._reference = unpacked(setup.state)
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: style}

    def prepare(self, frame: RenderFrame) -> Prepared:
        """See FrameDrawer.prepare.

        Raises:
            InvalidRequest: the features have another shape than the box and a texture's channels, or the speech has another shape.
        """
        assert frame.neural_features is not None  # the renderer declares these inputs
        assert frame.speech_features is not None
        require_forms(frame.neural_features, frame.speech_features, frame.mask)
        covered = np.asarray(frame.neural_features.any(axis=-1), np.bool_)
        ground = ground_picture(frame.background, frame.mask, self._reference)
        return Prepared(filled_frame(ground, frame.mask, feature_bytes(frame.neural_features), covered), covered)

    def show(self, window: Window[Prepared]) -> Shown:
        """See FrameDrawer.show."""
        frame, filled = window.frame, window.now.filled
        assert frame.speech_features is not None
        lips = lip_pictures(frame.box_landmarks, len(frame.mask))[..., 0]
        picture = network_picture([item.filled for item in window.items], self._reference, lips, frame.speech_features)
        return Shown({INPUT_PICTURES: picture}, filled.base)

    def draw(self, window: Window[Prepared], shown: Shown, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameDrawer.draw."""
        frame = window.frame
        face = with_face(frame, with_smooth_chroma(without_dots(drawn_face(shown.base, outputs[OUTPUT_RESIDUAL]))))
        return with_filmed_border(face, frame.background, window.now.covered)
