"""Which frames of the footage a person's texture bank is made from, and how many of these frames the bank keeps."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from gateway.pipeline.motion_clip import FEW_SECONDS, motion_records
from gateway.pipeline.records import RecordFile
from services.common.array_types import Float64
from services.common.face.bank_choice import choose_frames

FEW_FRAMES: Final = 300
"""Frames of a bank that is made from ten seconds or less."""
FRAMES_PER_S: Final = 12
"""Further frames of a bank for each further second of usable footage."""
MOST_FRAMES: Final = 900
"""Most frames of a bank: one minute of usable footage reaches this number."""
MOST_SENT: Final = 1500
"""Most frames that the texture stage chooses from: one minute at 25 frames per second. The stage holds the frames in memory."""
STRETCH_FRAMES: Final = 25
"""Neighbours that are sent together. The texture stage gives every stretch without a gap one exposure."""


class BankRows(NamedTuple):
    """Frames for a bank.

    Attributes:
        rows: record rows, in the order of the footage.
        max_frames: most frames that the bank keeps; 0: the texture stage's own number.
    """

    rows: list[int]
    max_frames: int


def bank_rows(faces: RecordFile, rows: list[int], seconds: Float64) -> BankRows:
    """Return the frames for a bank: all usable frames of a minute, or the most different mouths of longer footage.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the usable frames.
        seconds: float64 [T], presentation time of every frame from the first frame.
    """
    records = motion_records(faces, rows)
    shown = np.diff(seconds, append=seconds[-1:])[records["frame"]].sum()
    if shown <= FEW_SECONDS + 0.5:
        return BankRows(rows, 0)
    most = min(MOST_FRAMES, FEW_FRAMES + int(FRAMES_PER_S * (shown - FEW_SECONDS)))
    chosen = choose_frames(records["mouth"], records["frame"], MOST_SENT, STRETCH_FRAMES)
    return BankRows([rows[place] for place in chosen], most)
