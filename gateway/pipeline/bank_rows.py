"""Which frames of the footage a person's texture bank is made from."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from gateway.pipeline.motion_clip import FEW_SECONDS, motion_records
from gateway.pipeline.records import RecordFile
from services.common.array_types import Float64
from services.common.face.bank_choice import choose_frames

MOST_FRAMES: Final = 900
"""Most frames of a bank that is made from more than ten seconds: 36 s at 25 frames per second. More frames gain little, and cost
time in every frame of a dub."""
STRETCH_FRAMES: Final = 50
"""Neighbours that are chosen together. Retrieval finds no window in the first five frames of a stretch. Short stretches also hold
mostly rare mouths, and the ordinary mouths are missed. The texture stage gives each stretch one exposure."""


class BankRows(NamedTuple):
    """Frames for a bank.

    Attributes:
        rows: record rows, in the order of the footage.
        max_frames: most frames that the bank keeps; 0: the texture stage's own number.
    """

    rows: list[int]
    max_frames: int


def bank_rows(faces: RecordFile, rows: list[int], seconds: Float64) -> BankRows:
    """Return the frames for a bank: all usable frames, or the stretches with the most different mouths.

    Of ten seconds or less, the texture stage chooses: its number is smaller and keeps banks of high frame rates small.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the usable frames.
        seconds: float64 [T], presentation time of every frame from the first frame.
    """
    records = motion_records(faces, rows)
    shown_s = np.diff(seconds, append=seconds[-1:])[records["frame"]].sum()
    if shown_s <= FEW_SECONDS + 0.5:
        return BankRows(rows, 0)
    chosen = choose_frames(records["mouth"], records["frame"], MOST_FRAMES, STRETCH_FRAMES)
    return BankRows([rows[place] for place in chosen], MOST_FRAMES)
