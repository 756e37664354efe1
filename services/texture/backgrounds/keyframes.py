"""Keyframes of a head motion: its turning points (Yi et al., Sec. 3.3.2).

The paper takes "the frames with largest head orientation in one axis in a short period of time". Here an axis turns where the
angle has gone back from an extremum by more than its noise and a share of its spread: a trembling prediction makes no keyframes,
and a calm prediction makes some. Of keyframes too close to each other the larger turn stays. Long gaps are filled with frames.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float64, Int64

MIN_DISTANCE: Final = 8
"""Smallest number of frames between keyframes. The first and the last frame are always keyframes."""
MAX_DISTANCE: Final = 50
"""Largest number of frames between keyframes."""
NOISE_FACTOR: Final = 4.0
SPREAD_SHARE: Final = 0.3
_SMOOTHING_FRAMES: Final = 1.5
_NOISE_OF_MEDIAN: Final = 1.4826 / np.sqrt(6.0)
"""Standard deviation of white noise divided by the median absolute second difference."""


def keyframes_of(angles: Float64) -> Int64:
    """Return keyframes of a motion, increasing, int64 [K]; the first and the last frame are always among them.

    Args:
        angles: float64 [T, 3], pitch, yaw, roll, radians.
    """
    count = len(angles)
    if count <= 2:
        return np.arange(count, dtype=np.int64)
    smooth = cv2.GaussianBlur(angles, (1, 0), sigmaX=1e-6, sigmaY=_SMOOTHING_FRAMES, borderType=cv2.BORDER_REPLICATE)
    size = np.zeros(count)
    for axis, line in zip(angles.T, smooth.T, strict=True):
        spread = float(line.std())
        if spread > 0.0:
            noise = _NOISE_OF_MEDIAN * float(np.median(np.abs(np.diff(axis, 2))))
            for frame, turn in turning_points(line, max(NOISE_FACTOR * noise, SPREAD_SHARE * spread)):
                size[frame] = max(size[frame], turn / spread)
    return _filled(_spaced(size))


def turning_points(line: Float64, threshold: float) -> list[tuple[int, float]]:
    """Return extrema of a line float64 [T] that the line leaves by more than `threshold`, with their sizes.

    The size of an extremum is the smaller of the ways that the line came and went.

    Returns:
        (frame, size) pairs, frames increasing. Minima and maxima take turns. The ends of the line are no extrema.
    """
    found: list[tuple[int, float]] = []
    values = line.tolist()
    low = high = last = 0
    rising = 0
    for frame, value in enumerate(values):
        if value > values[high]:
            high = frame
        if value < values[low]:
            low = frame
        if rising >= 0 and values[high] - value > threshold:
            if rising or high:
                found.append((high, values[high] - values[last]))
            last, low, rising = high, frame, -1
        elif rising <= 0 and value - values[low] > threshold:
            if rising or low:
                found.append((low, values[last] - values[low]))
            last, high, rising = low, frame, 1
    ends = [values[frame] for frame, _ in found[1:]] + values[-1:]
    return [(frame, min(abs(came), abs(values[frame] - end))) for (frame, came), end in zip(found, ends, strict=False)]


def _spaced(size: Float64) -> Int64:
    """Return both ends and the frames of `size` above 0, larger sizes first, no two frames nearer than MIN_DISTANCE."""
    count = len(size)
    free = np.ones(count, bool)
    free[:MIN_DISTANCE] = free[count - MIN_DISTANCE :] = False
    kept = [0, count - 1]
    for frame in np.argsort(-size, kind="stable")[: np.count_nonzero(size)]:
        if free[frame]:
            kept.append(int(frame))
            free[max(frame - MIN_DISTANCE + 1, 0) : frame + MIN_DISTANCE] = False
    return np.array(sorted(kept), np.int64)


def _filled(frames: Int64) -> Int64:
    """Return the same frames, and evenly spaced frames in gaps above MAX_DISTANCE."""
    pieces = [frames[:1]]
    for begin, end in zip(frames[:-1], frames[1:], strict=True):
        parts = -(-int(end - begin) // MAX_DISTANCE)
        pieces.append(begin + (np.arange(1, parts + 1) * int(end - begin)) // parts)
    return np.concatenate(pieces)
