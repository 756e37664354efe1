"""Length of a video whose speech is longer or shorter than the footage.

See the table in `gateway.dub.choices`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gateway.dub.choices import Fit
from gateway.media.types import VideoInfo
from services.common.array_types import Int64


def shown_frames(fit: Fit, video: VideoInfo, num_frames: int) -> list[int]:
    """Return the footage frame that each frame of a video shows, for all fits but `cut` and `retime`.

    Frame n is shown at n / rate (`own_timeline`). Of footage with a constant rate, frames are counted; of other footage, the frame
    is the one that the footage shows at the time that the fit gives.

    Args:
        video: the footage.
        num_frames: number of frames of the video.
    """
    ticks: Int64 = np.arange(num_frames, dtype=np.int64)
    if video.constant_rate is not None:
        begins, end = np.arange(video.num_frames, dtype=np.int64), video.num_frames
    else:
        begins = video.pts - video.pts[0]
        end = int(begins[-1]) + video.last_duration
        per_frame = 1 / video.average_rate.limit_denominator(1001) / video.time_base
        ticks = ticks * per_frame.numerator // per_frame.denominator
    return [int(frame) for frame in np.searchsorted(begins, _footage_ticks(fit, ticks, end, num_frames), side="right") - 1]


def cuts_of(chosen: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """Return the frames of a video that begin a shot: where the footage begins one, and where the footage begins anew.

    Args:
        chosen: footage frame that each frame of the video shows.
        cuts: frames of the footage that begin a shot.
    """
    shots = np.searchsorted(np.asarray(cuts, np.int64), np.asarray(chosen, np.int64), side="right")
    jumps = np.diff(np.asarray(chosen, np.int64)) < -1
    return [int(frame) + 1 for frame in np.flatnonzero((np.diff(shots) != 0) | jumps)]


def _footage_ticks(fit: Fit, ticks: Int64, end: int, num_frames: int) -> Int64:
    """Return the tick of the footage, 0 to end - 1, at each tick of the video."""
    match fit:
        case "pad":
            return np.minimum(ticks, end - 1)
        case "loop":
            return ticks % end
        case "bounce":
            # The first and the last tick are not shown twice in a row.
            there = ticks % max(1, 2 * end - 2)
            return np.minimum(there, 2 * end - 2 - there)
        case "slow":
            return np.arange(num_frames, dtype=np.int64) * end // num_frames
        case _:
            raise ValueError(f"fit {fit} has no frames of its own")
