"""The choice of frames for a mouth bank: the most different mouths, in stretches of neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.common.face.landmarks import NUM_LIPS
from services.common.face.mouth_bank import WINDOW


def choose_frames(mouth: Float32, index: npt.NDArray[np.int64], max_frames: int, length: int = WINDOW) -> npt.NDArray[np.intp]:
    """Return rows to keep, increasing: int [<= max_frames].

    Of more than `max_frames` frames, stretches of neighbours are kept: each time the stretch whose last mouth differs most from all
    kept mouths (farthest-point sampling). So rare openings stay, and retrieval finds windows. Frames without neighbours are
    chosen one by one.

    Args:
        mouth: float32 [F, 59, 3], head space.
        index: int64 [F], strictly increasing; neighbours in time differ by 1.
        max_frames: largest number of frames to keep.
        length: frames of a stretch, at least 1.

    Raises:
        Cancelled: the current call is over.
    """
    if len(index) <= max_frames:
        return np.arange(len(index))
    lips = mouth[:, :NUM_LIPS, :2].reshape(len(mouth), -1)
    ends = np.arange(length - 1, len(index))
    ends = ends[index[ends] - index[ends - length + 1] == length - 1]
    if not len(ends) or max_frames < length:
        return _farthest(lips, max_frames)
    kept = np.zeros(len(index), dtype=bool)
    # Distances to the kept frames, updated stretch by stretch: F x 80 numbers per step.
    nearest = np.abs(lips - np.median(lips, axis=0)).mean(axis=1) + 1e6
    while True:
        check_still_wanted()
        end = int(ends[np.argmax(nearest[ends])])
        stretch = np.arange(end - length + 1, end + 1)
        if nearest[end] <= 0 or kept.sum() + (~kept[stretch]).sum() > max_frames:
            break
        kept[stretch] = True
        for row in stretch:
            np.minimum(nearest, np.abs(lips - lips[row]).mean(axis=1), out=nearest)
    return np.flatnonzero(kept)


def _farthest(points: Float32, count: int) -> npt.NDArray[np.intp]:
    chosen = [int(np.argmax(np.abs(points - np.median(points, axis=0)).mean(axis=1)))]
    nearest = np.abs(points - points[chosen[0]]).mean(axis=1)
    # Mouths that equal chosen ones would add nothing.
    while len(chosen) < count and nearest.max() > 0:
        check_still_wanted()
        chosen.append(int(np.argmax(nearest)))
        np.minimum(nearest, np.abs(points - points[chosen[-1]]).mean(axis=1), out=nearest)
    return np.sort(np.array(chosen, dtype=np.intp))
