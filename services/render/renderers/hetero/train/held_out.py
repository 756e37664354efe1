"""Self-re-enactment for `hetero`: a reference picture from the first part of a clip, windows to draw from the rest."""

from __future__ import annotations

from services.common.array_types import UInt8
from services.render.pairs import NO_NOISE, Pair
from services.render.renderers.hetero.pairs import CompositeView, composite_pair, rows_around
from services.render.renderers.hetero.reference import choose_references
from services.render.train.held_out import Clip, HeldOut, TwoParts, held_out


def read_composites(clip: Clip, num_frames: int, reference: UInt8 | None = None) -> HeldOut:
    """Return a clip with windows of composites.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        reference: uint8 [160, 160, 3], the reference picture; None: chosen from the enrolment part.
    """
    chosen = reference

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        if chosen is None:
            chosen = parts.bank.boxes[choose_references(parts.bank)[0]]
        rows = rows_around(parts.whole.frame_index, row)
        return composite_pair(parts.whole, CompositeView(rows, parts.whole.boxes[list(rows)], chosen), NO_NOISE, 0)

    return held_out(clip, num_frames, pair)
