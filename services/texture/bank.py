"""A mouth-texture bank from frames of footage: the choice of frames, and one exposure for all frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.actor_geometry import ANCHORS, lower_face_mask, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS
from services.common.face.mouth_bank import MouthBank, choose_frames, make_bank
from services.common.face.native_pictures import NativeFile, packed
from services.common.server.call_context import check_not_cancelled
from services.texture.types import BankFrame

T = TypeVar("T")

DEFAULT_FRAMES: Final = 300
_MAX_GAIN: Final = 2.0
_LIP_MARGIN_PX: Final = 6.0


def build_bank(frames: Sequence[BankFrame], max_frames: int = DEFAULT_FRAMES) -> MouthBank:
    """Return the bank of one person.

    Geometry is measured on all frames. Of more than `max_frames` frames, windows of six neighbours with the most different mouths
    are kept (services.common.face.mouth_bank.choose_frames).

    Args:
        frames: frames of one person, frame_index strictly increasing.
        max_frames: largest number of frames to keep, >= 1.

    Raises:
        NoUsableFootageError: there are no frames.
        InvalidRequestError: indices do not increase, max_frames < 1, some frames have speech, expression, a native picture or a
            spoken mouth and others have not, or native pictures have several sizes.
        WorkCancelledError: the current call is over.
    """
    if max_frames < 1:
        raise InvalidRequestError(f"a bank keeps at least 1 frame, not {max_frames}", field="config.max_frames")
    if not frames:
        raise NoUsableFootageError("a mouth bank needs at least one frame with a usable face", subject="footage")
    index = np.array([frame.frame_index for frame in frames], dtype=np.int64)
    wrong = np.flatnonzero(np.diff(index) <= 0)
    if len(wrong):
        first, second = index[wrong[0]], index[wrong[0] + 1]
        raise InvalidRequestError(f"frame_index must increase: {second} came after {first}", field="frame.frame_index")
    speech = _of_all([frame.speech for frame in frames], "speech")
    expression = _of_all([frame.expression for frame in frames], "expression")
    spoken = _of_all([frame.spoken_mouth for frame in frames], "spoken_mouth")
    natives = _natives([frame.native for frame in frames])
    heads = []
    for frame in frames:
        check_not_cancelled()
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
        native=packed([natives[row] for row in kept]) if natives else None,
        spoken_mouth=None if spoken is None else spoken[kept],
    )
    return harmonise(bank, np.cumsum(np.diff(index, prepend=index[0]) > 1, dtype=np.intp)[kept])


def harmonise(bank: MouthBank, segment: npt.NDArray[np.intp]) -> MouthBank:
    """Return the bank with one exposure and white balance: each segment's skin gets the whole bank's median colour.

    There is one gain per segment and channel (1/2 to 2), not per frame: within a shot the skin's colour follows the head's turns in
    the light, which the texture must keep. Skin is the lower face without the lips' surroundings.

    Args:
        segment: int [F], number of each frame's span of footage without gaps.
    """
    if segment[0] == segment[-1]:
        return bank
    colours = np.maximum(np.stack([_skin_colour(bank, row) for row in range(bank.num_frames)]), 1.0)
    boxes = np.empty_like(bank.boxes)
    for number in np.unique(segment):
        rows = np.flatnonzero(segment == number)
        gain = np.clip(np.median(colours, axis=0) / np.median(colours[rows], axis=0), 1.0 / _MAX_GAIN, _MAX_GAIN)
        for row in rows:
            check_not_cancelled()
            boxes[row] = np.clip(np.rint(bank.boxes[row] * gain.astype(np.float32)), 0, 255)
    return replace(bank, boxes=boxes)


def _all_or_none(values: Sequence[T | None], name: str) -> list[T]:
    """Return an optional value of the frames; empty: no frame has one."""
    given = [value for value in values if value is not None]
    if given and len(given) < len(values):
        field = f"frame.{name}"
        raise InvalidRequestError(
            f"{field}: {len(given)} of {len(values)} frames have it; all frames must have it, or none", field=field
        )
    return given


def _natives(files: Sequence[NativeFile | None]) -> list[NativeFile]:
    given = _all_or_none(files, "native")
    scales = sorted({file.scale for file in given})
    if len(scales) > 1:
        sides = " and ".join(str(scale * BOX_SIZE) for scale in scales)
        raise InvalidRequestError(
            f"frame.native: all frames must have the same size, not {sides} pixels a side", field="frame.native"
        )
    return given


def _of_all(arrays: Sequence[Float32 | None], name: str) -> Float32 | None:
    """Return an optional array of the frames, stacked; None: no frame has one."""
    given = _all_or_none(arrays, name)
    if not given:
        return None
    field = f"frame.{name}"
    shapes = sorted({array.shape for array in given})
    if len(shapes) > 1:
        raise InvalidRequestError(
            f"{field}: all frames must have the same shape, not {list(shapes[0])} and {list(shapes[1])}", field=field
        )
    return np.stack(given)


def _skin_colour(bank: MouthBank, row: int) -> npt.NDArray[np.float64]:
    check_not_cancelled()
    mask = lower_face_mask(bank.geometry, HeadPose(1.0, bank.rotation[row], np.zeros(3))) > 127
    lips = bank.box_landmarks[row, :NUM_LIPS]
    left, top = np.maximum(np.floor(lips.min(axis=0) - _LIP_MARGIN_PX).astype(int), 0)
    right, bottom = np.maximum(np.ceil(lips.max(axis=0) + _LIP_MARGIN_PX).astype(int), 0)
    mask[top:bottom, left:right] = False
    if not mask.any():
        mask = np.ones_like(mask)
    return np.asarray(bank.boxes[row][mask].mean(axis=0, dtype=np.float64))
