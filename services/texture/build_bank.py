"""A mouth-texture bank from frames of footage: the choice of frames, and one exposure for all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.chassis.calls import check_still_wanted
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS
from services.common.face.mouth_bank import WINDOW, MouthBank, make_bank
from services.texture.types import BankFrame

DEFAULT_FRAMES: Final = 300
_MAX_GAIN: Final = 2.0
_LIP_MARGIN_PX: Final = 6.0


def build_bank(frames: Sequence[BankFrame], max_frames: int = DEFAULT_FRAMES) -> MouthBank:
    """Return the bank of one person.

    Geometry is measured on all frames. Of more than `max_frames` frames, windows of six neighbours are kept: each time the
    window whose mouth differs most from all kept frames (farthest-point sampling). So rare openings stay, and windows exist.

    Args:
        frames: frames of one person, frame_index strictly increasing.
        max_frames: largest number of frames to keep, >= 1.

    Raises:
        NoUsableFootage: there are no frames.
        InvalidRequest: indices do not increase, max_frames < 1, or some frames have speech or expression and others do not.
        Cancelled: the current call is over.
    """
    if max_frames < 1:
        raise InvalidRequest(f"a bank keeps at least 1 frame, not {max_frames}", field="config.max_frames")
    if not frames:
        raise NoUsableFootage("a mouth bank needs at least one frame with a usable face", subject="footage")
    index = np.array([frame.frame_index for frame in frames], dtype=np.int64)
    wrong = np.flatnonzero(np.diff(index) <= 0)
    if len(wrong):
        first, second = index[wrong[0]], index[wrong[0] + 1]
        raise InvalidRequest(f"frame_index must increase: {second} came after {first}", field="frame.frame_index")
    speech = _of_all([frame.speech for frame in frames], "speech")
    expression = _of_all([frame.expression for frame in frames], "expression")
    heads = []
    for frame in frames:
        check_still_wanted()
        heads.append(to_head_space(frame.landmarks, frame.pose))
    mouth = np.stack([head[list(MOUTH_AREA)] for head in heads])
    geometry = measure_geometry(mouth, np.stack([head[list(ANCHORS)] for head in heads]))
    kept = choose_frames(mouth, index, max_frames)
    bank = make_bank(
        np.stack([frames[row].box for row in kept]),
        mouth[kept],
        np.stack([frames[row].pose.rotation for row in kept]),
        index[kept],
        geometry,
        speech=None if speech is None else speech[kept],
        expression=None if expression is None else expression[kept],
    )
    return harmonise(bank, np.cumsum(np.diff(index, prepend=index[0]) > 1, dtype=np.intp)[kept])


def choose_frames(mouth: Float32, index: npt.NDArray[np.int64], max_frames: int) -> npt.NDArray[np.intp]:
    """Return rows to keep, increasing: int [<= max_frames].

    Args:
        mouth: float32 [F, 59, 3], head space.
        index: int64 [F], strictly increasing.
        max_frames: largest number of frames to keep.
    """
    if len(index) <= max_frames:
        return np.arange(len(index))
    lips = mouth[:, :NUM_LIPS, :2].reshape(len(mouth), -1)
    ends = np.arange(WINDOW - 1, len(index))
    ends = ends[index[ends] - index[ends - WINDOW + 1] == WINDOW - 1]
    if not len(ends) or max_frames < WINDOW:
        return _farthest(lips, max_frames)
    kept = np.zeros(len(index), dtype=bool)
    # Distances to the kept frames, updated window by window: F x 80 numbers per step.
    nearest = np.abs(lips - np.median(lips, axis=0)).mean(axis=1) + 1e6
    while True:
        check_still_wanted()
        end = int(ends[np.argmax(nearest[ends])])
        window = np.arange(end - WINDOW + 1, end + 1)
        if nearest[end] <= 0 or kept.sum() + (~kept[window]).sum() > max_frames:
            break
        kept[window] = True
        for row in window:
            np.minimum(nearest, np.abs(lips - lips[row]).mean(axis=1), out=nearest)
    return np.flatnonzero(kept)


def harmonise(bank: MouthBank, segment: npt.NDArray[np.intp]) -> MouthBank:
    """Return the bank with one exposure and white balance: each segment's skin gets the whole bank's median colour.

    There is one gain per segment and channel (1/2 to 2), not per frame: within a shot the skin's colour follows the head's turns in
    the light, which the texture must keep. Skin is the lower face without the lips' surroundings.

    Args:
        bank: the bank.
        segment: int [F], number of each frame's stretch of footage without gaps.
    """
    if segment[0] == segment[-1]:
        return bank
    colours = np.maximum(np.stack([_skin_colour(bank, row) for row in range(bank.num_frames)]), 1.0)
    boxes = np.empty_like(bank.boxes)
    for number in np.unique(segment):
        rows = np.flatnonzero(segment == number)
        gain = np.clip(np.median(colours, axis=0) / np.median(colours[rows], axis=0), 1.0 / _MAX_GAIN, _MAX_GAIN)
        for row in rows:
            check_still_wanted()
            boxes[row] = np.clip(np.rint(bank.boxes[row] * gain.astype(np.float32)), 0, 255)
    return replace(bank, boxes=boxes)


def _of_all(arrays: Sequence[Float32 | None], name: str) -> Float32 | None:
    """Return an optional array of the frames, stacked; None: no frame has one."""
    given = [array for array in arrays if array is not None]
    if not given:
        return None
    field = f"frame.{name}"
    if len(given) < len(arrays):
        raise InvalidRequest(
            f"{field}: {len(given)} of {len(arrays)} frames have it; all frames must have it, or none", field=field
        )
    shapes = sorted({array.shape for array in given})
    if len(shapes) > 1:
        raise InvalidRequest(
            f"{field}: all frames must have the same shape, not {list(shapes[0])} and {list(shapes[1])}", field=field
        )
    return np.stack(given)


def _skin_colour(bank: MouthBank, row: int) -> npt.NDArray[np.float64]:
    check_still_wanted()
    mask = lower_face_mask(bank.geometry, HeadPose(1.0, bank.rotation[row], np.zeros(3))) > 127
    lips = bank.box_landmarks[row, :NUM_LIPS]
    left, top = np.maximum(np.floor(lips.min(axis=0) - _LIP_MARGIN_PX).astype(int), 0)
    right, bottom = np.maximum(np.ceil(lips.max(axis=0) + _LIP_MARGIN_PX).astype(int), 0)
    mask[top:bottom, left:right] = False
    if not mask.any():
        mask = np.ones_like(mask)
    return np.asarray(bank.boxes[row][mask].mean(axis=0, dtype=np.float64))


def _farthest(points: Float32, count: int) -> npt.NDArray[np.intp]:
    chosen = [int(np.argmax(np.abs(points - np.median(points, axis=0)).mean(axis=1)))]
    nearest = np.abs(points - points[chosen[0]]).mean(axis=1)
    while len(chosen) < count:
        check_still_wanted()
        chosen.append(int(np.argmax(nearest)))
        np.minimum(nearest, np.abs(points - points[chosen[-1]]).mean(axis=1), out=nearest)
    return np.sort(np.array(chosen, dtype=np.intp))
