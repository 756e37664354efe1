"""Self-re-enactment for `ugc`: a bank from the first part of a clip, textures for the frames of the rest."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.render.pairs import Pair
from services.render.renderers.ugc.pairs import choose_sources, make_pair
from services.render.train.held_out import Clip, HeldOut, TwoParts, held_out

_BLENDED: Final = 3


def read_textured(clip: Clip, num_frames: int) -> HeldOut:
    """Return a clip with pairs whose texture is warped from the bank to the frame's own landmarks.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
    """

    def pair(parts: TwoParts, row: int) -> Pair:
        sources = choose_sources(parts.whole, row, np.arange(parts.bank.num_frames), _BLENDED)
        return make_pair(parts.whole, row, sources, parts.whole.mouth[row])

    return held_out(clip, num_frames, pair)
