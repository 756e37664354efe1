"""Strips: consecutive frames of a mouth at the size of the video, the real video above the dub, for eyes.

A strip shows the frames in which the real mouth moves most. The choice depends on the real video only, so strips of two methods or
versions show the same frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.reports.pictures import stack_rows
from research.evaluation.results import check_writable, file_errors_named
from research.evaluation.types import VARIANTS, ClipResult, FrameRange
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose
from services.common.files import write_whole

STRIP_FRAMES: Final = 30
"""Frames of a strip."""
STRIP_COLUMNS: Final = 10
"""Frames beside each other in a strip."""
_MOUTH_SIZE: Final = (92, 120)
"""Height and width of a mouth in a strip, crop pixels."""


def mouth_size(poses: Sequence[HeadPose]) -> tuple[int, int]:
    """Return the height and width of the mouth in a strip at the size of the video, pixels, by the median scale of head poses."""
    height, width = (round(side * float(np.median([pose.scale for pose in poses]))) for side in _MOUTH_SIZE)
    return height, width


def mouth_part(frame: UInt8, pose: HeadPose, size: tuple[int, int]) -> UInt8:
    """Return the part of a frame around the mouth, uint8 [height, width, 3], inside the frame.

    Args:
        frame: uint8 [H, W, 3].
        size: height and width, pixels.
    """
    x, y = (int(coordinate) for coordinate in np.rint(pose.translation[:2]))
    height, width = size
    left = min(max(x - width // 2, 0), max(frame.shape[1] - width, 0))
    top = min(max(y - height // 2, 0), max(frame.shape[0] - height, 0))
    return frame[top : top + height, left : left + width]


def busiest_frames(opening: Float32, count: int = STRIP_FRAMES) -> FrameRange | None:
    """Return the consecutive frames in which the opening of a mouth changes most; of equal ones the first.

    Args:
        opening: float32 [T], opening of the mouth, NaN where it is not measured.
        count: number of frames, at least 2.

    Returns:
        the frames, from 0; None: no `count` consecutive frames are measured.
    """
    if len(opening) < count:
        return None
    change = np.abs(np.diff(opening.astype(np.float64)))
    sums = np.convolve(np.nan_to_num(change), np.ones(count - 1), "valid")
    gaps = np.convolve(np.isnan(change), np.ones(count - 1), "valid")
    sums[gaps > 0.5] = -1.0
    first = int(np.argmax(sums.round(6)))
    return FrameRange(first, first + count) if sums[first] >= 0.0 else None


def strip_of(video: UInt8, dub: UInt8) -> UInt8:
    """Return a strip: rows of STRIP_COLUMNS frames of the video, and the same frames of the dub below each row.

    Args:
        video, dub: uint8 [N, H, W, 3], RGB, the same frames in order, N >= 1.
    """
    rows: list[UInt8] = []
    for begin in range(0, len(video), STRIP_COLUMNS):
        rows += [pictures[begin : begin + STRIP_COLUMNS] for pictures in (video, dub)]
    return stack_rows(rows)


def check_strips_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that strips can be written to a folder.

    Args:
        folder: a new folder, or an empty one. `write_strips` creates missing folders.
        overwrite: allow a folder that holds files. Strips of the same names are replaced.

    Raises:
        InvalidRequestError: the folder is no folder, holds files, or cannot be written.
    """
    with file_errors_named(folder, "strips"):
        if folder.exists() and not folder.is_dir():
            raise InvalidRequestError(f"{folder} is not a folder; give the name of a new folder", field="strips")
        if folder.is_dir() and not overwrite and any(folder.iterdir()):
            raise InvalidRequestError(f"{folder} is not empty; give a new folder, or add strips with --overwrite", field="strips")
    check_writable(folder / "strip.png", "strips")


def write_strips(folder: Path, results: Sequence[ClipResult]) -> list[Path]:
    """Write one PNG for each clip and variant, and return the paths. Missing folders are created.

    Raises:
        InvalidRequestError: a file cannot be written.
    """
    paths = []
    for index, result in enumerate(results):
        stem = f"{index:02d}_" + re.sub(r"[^A-Za-z0-9]+", "_", result.clip).strip("_")
        for variant in VARIANTS:
            if variant not in result.strips:
                continue
            path = folder / f"{stem}_{variant}.png"
            _, data = cv2.imencode(".png", result.strips[variant][..., ::-1])
            with file_errors_named(path, "strips"):
                write_whole(path, data.tobytes(), parents=True)
            paths.append(path)
    return paths
