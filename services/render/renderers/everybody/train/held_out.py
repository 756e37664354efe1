"""Self-re-enactment for `everybody`: key pictures from the first part of a clip, windows to draw from the rest."""

from __future__ import annotations

import numpy as np

from services.render.key_pictures import KeyPictures, choose_keys
from services.render.pairs import NO_NOISE, Pair, window_rows
from services.render.renderers.everybody.inputs import WINDOW_FRAMES
from services.render.renderers.everybody.pairs import WindowView, window_pair
from services.render.train.held_out import Clip, HeldOut, TwoParts, held_out


def read_windows(clip: Clip, num_frames: int, keys: KeyPictures | None = None) -> HeldOut:
    """Return a clip with windows of masked frames and heatmaps.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        keys: key pictures of the actor; None: chosen from the enrolment part.
    """
    chosen = keys

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        chosen = chosen or choose_keys(parts.bank, np.arange(parts.bank.num_frames))
        window = window_rows(parts.whole.frame_index, row, WINDOW_FRAMES)
        return window_pair(parts.whole, WindowView(window, parts.whole.boxes[list(window)], chosen), NO_NOISE, 0)

    return held_out(clip, num_frames, pair)
