"""A natural schedule of blinks for still pictures, whose eyes would never move otherwise.

Each span of 4 s has one blink. The span's number and a fixed seed decide the blink's place in the span, so that two blinks lie
1.2 to 6.8 s apart. A blink takes 0.28 s: the lids shut within 0.1 s and open more slowly (Caffier et al. 2003).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.wire.timeline import MOTION_RATE

SEED: Final = 20
SPAN_FRAMES: Final = 100
"""Frames of a span: 4 s of the 25 frames/s grid."""
_MARGIN: Final = 15
CLOSURE: Final[tuple[float, ...]] = (0.45, 1.0, 1.0, 0.75, 0.45, 0.2, 0.05)
"""Closure of the eyes in the frames of one blink, 0 open to 1 shut."""


def blink_start(span: int) -> int:
    """Return the grid frame at which the blink of a span begins."""
    rng = np.random.default_rng([SEED, span])
    return span * SPAN_FRAMES + int(rng.integers(_MARGIN, SPAN_FRAMES - _MARGIN))


def blinks(frames: npt.NDArray[np.intp]) -> Float32:
    """Return the closure of the eyes at frames of the grid (25 per second, >= 0): float32 [T], 0 open to 1 shut."""
    assert MOTION_RATE == 25
    found = np.zeros(len(frames), np.float32)
    for row, frame in enumerate(frames):
        since = int(frame) - blink_start(int(frame) // SPAN_FRAMES)
        if 0 <= since < len(CLOSURE):
            found[row] = CLOSURE[since]
    return found
