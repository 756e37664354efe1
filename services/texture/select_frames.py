"""Retiming: which footage frame stands behind each frame of new speech, by dynamic programming.

Frame Selection Algorithm of Everybody's Talkin' (App. E, Alg. 1), after the retiming of Suwajanakorn et al. 2017: the head moves
and the eyes blink while somebody speaks, and rest while nobody does. The paper's text mixes argmin with minus infinity;
here it is a path of least cost, in which what is forbidden costs infinitely much.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float64
from services.common.errors import InvalidRequestError
from services.common.server.call_context import check_not_cancelled

BLINK_WEIGHT: Final = 0.5
"""alpha_p: what a blink counts beside the fastest head motion of the footage, 1."""
REPEAT_COST: Final = 1.0
"""alpha_s: cost of showing a frame twice, times its motion: a moving head that stands still for a frame is seen."""
MAX_STATES: Final = 400_000_000
"""Footage frames times speech frames: 50 MB of decisions, a quarter of an hour each at 25 frames/s."""
_SPECKLE_FRAMES: Final = 5


def select_frames(head_motion: Float64, blink: Bool, silent: Bool) -> npt.NDArray[np.int64]:
    """Return footage frames for new speech: order kept, none left out between the first and the last, each shown at most twice.

    Args:
        head_motion: float64 [F], speed of the nose tip in each footage frame, 0 to 1.
        blink: bool [F], eyes shut.
        silent: bool [T], nobody speaks; shorter pauses and words than five frames are smoothed away.

    Returns:
        int64 [T], never decreasing.

    Raises:
        InvalidRequestError: the footage is shorter than half the speech, or both are too long.
        WorkCancelledError: the call that asked for this work is over; checked once per frame of speech.
    """
    num_footage, num_speech = len(head_motion), len(silent)
    if 2 * num_footage < num_speech:
        raise InvalidRequestError(
            f"{num_speech} frames of speech need {(num_speech + 1) // 2} frames of footage, there are {num_footage}",
            field="head_motion",
        )
    if num_footage * num_speech > MAX_STATES:
        raise InvalidRequestError(
            f"{num_footage} frames of footage and {num_speech} of speech are too many to retime at once: cut them at a pause",
            field="silent",
        )
    if not num_speech:
        return np.zeros(0, np.int64)
    liveliness = np.minimum(head_motion + BLINK_WEIGHT * blink, 1.0)
    resting = without_speckles(silent)
    once = liveliness.copy()
    twice = np.full(num_footage, np.inf)
    came_from_repeat = np.zeros((num_speech, (num_footage + 7) // 8), np.uint8)
    for i in range(1, num_speech):
        check_not_cancelled()
        mismatch = liveliness if resting[i] else 1.0 - liveliness
        from_repeat = twice < once
        came_from_repeat[i] = np.packbits(from_repeat)
        best = np.where(from_repeat, twice, once)
        twice = once + REPEAT_COST * liveliness + mismatch
        once = np.concatenate(([np.inf], best[:-1] + mismatch[1:]))
    return _trace_back(came_from_repeat, once, twice)


def without_speckles(flags: Bool) -> Bool:
    """Return flags with runs of True and of False under five frames filled: dilation and erosion, then the reverse. bool [T]."""
    line = flags.astype(np.uint8)[None]
    kernel = np.ones((1, _SPECKLE_FRAMES), np.uint8)
    closed = cv2.morphologyEx(line, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(opened[0] > 0)


def _trace_back(came_from_repeat: npt.NDArray[np.uint8], once: Float64, twice: Float64) -> npt.NDArray[np.int64]:
    num_speech = len(came_from_repeat)
    chosen = np.empty(num_speech, np.int64)
    repeated = bool(twice.min() < once.min())
    j = int(np.argmin(twice if repeated else once))
    for i in range(num_speech - 1, -1, -1):
        chosen[i] = j
        if repeated:
            repeated = False
        elif i:
            j -= 1
            repeated = bool(came_from_repeat[i, j >> 3] >> (7 - (j & 7)) & 1)
    return chosen
