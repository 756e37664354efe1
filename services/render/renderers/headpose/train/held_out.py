"""Self-re-enactment for `headpose`: actor from the first part of a clip, drawn windows of the rest."""

from __future__ import annotations

import numpy as np

from services.common.face.identity_drawing import IdentityDrawing
from services.render.key_pictures import KeyPictures, choose_keys
from services.render.pairs import NO_NOISE, Pair, window_rows
from services.render.renderers.headpose.inputs import DRAWN_WINDOW
from services.render.renderers.headpose.pairs import DrawnView, drawn_pair
from services.render.train.held_out import Clip, HeldOut, TwoParts, held_out


def read_drawn(
    clip: Clip, num_frames: int, drawing: IdentityDrawing, *, detailed: bool, keys: KeyPictures | None = None
) -> HeldOut:
    """Return a clip with windows of drawn faces.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        drawing: draws the person, fitted on the first part.
        detailed: draw with the detailed albedo.
        keys: key pictures of the actor; None: chosen from the enrolment part.
    """
    chosen = keys

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        chosen = chosen or choose_keys(parts.bank, np.arange(parts.bank.num_frames))
        window = window_rows(parts.whole.frame_index, row, DRAWN_WINDOW)
        view = DrawnView(window, parts.whole.boxes[list(window)], chosen, drawing, detailed)
        return drawn_pair(parts.whole, view, NO_NOISE, 0)

    return held_out(clip, num_frames, pair)
