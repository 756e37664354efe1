"""Pictures of a video at the frames of a training set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from services.common.array_types import UInt8
from services.common.errors import MediaUnsupportedError

FRAME_RATE: Final = 25
"""Frames per second of every training set."""
_SQUARE_TOLERANCE: Final = Fraction(8, 100)
"""Sample aspects within this of 1 count as square, as in the tracking of videos."""
_SEEK_FROM: Final = 250
"""Frame number from which on a video is not read from its beginning."""
_TURNS: Final = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def read_frames(video: Path, requested: Collection[int]) -> dict[int, UInt8]:
    """Return upright RGB pictures of a video by frame number. Frames beyond the video's end are left out.

    Args:
        requested: frame numbers at 25 frames/s: frame n is the picture nearest to n / 25 s after the video's first picture.

    Raises:
        MediaUnsupportedError: the file is missing, or is no video that can be decoded. The message names the file.
    """
    numbers = sorted(requested)
    try:
        pictures = _read(video, numbers, begin=numbers[0] / FRAME_RATE - 1.0) if numbers and numbers[0] > _SEEK_FROM else None
        return pictures or _read(video, numbers, begin=0.0) or {}
    except (OSError, av.error.FFmpegError) as problem:
        raise MediaUnsupportedError(f"{video} cannot be read: {problem}") from problem


def _read(video: Path, requested: Sequence[int], *, begin: float) -> dict[int, UInt8] | None:
    """Return pictures by frame number; None: the video cannot be read from the time `begin` on, seconds."""
    waiting = list(requested)
    pictures: dict[int, UInt8] = {}
    with av.open(str(video)) as container:
        if not container.streams.video:
            raise MediaUnsupportedError(f"{video}: no video stream")
        stream = container.streams.video[0]
        before: tuple[av.VideoFrame, float] | None = None
        for number, (frame, time) in enumerate(_decoded(container, stream, begin)):
            if begin > 0 and number == 1 and time > begin + 1.0:
                return None
            if before is not None:
                _take(pictures, waiting, before[0], stream, until=(before[1] + time) / 2)
            before = frame, time
            if not waiting:
                break
        if before is not None:
            _take(pictures, waiting, before[0], stream, until=before[1] + 0.5 / FRAME_RATE)
    return pictures


def _decoded(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, begin: float
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield the first frame, then all frames from shortly before `begin` on, each with its time, seconds from the first frame."""
    first: int | None = None
    for number, frame in enumerate(container.decode(stream)):
        if frame.pts is None or frame.time_base is None:
            yield frame, number / FRAME_RATE
            continue
        is_first = first is None
        first = frame.pts if first is None else first
        yield frame, float((frame.pts - first) * frame.time_base)
        if is_first and begin > 0:
            container.seek(first + int(begin / frame.time_base), stream=stream)
            for later in container.decode(stream):
                if later.pts is not None:
                    yield later, float((later.pts - first) * frame.time_base)
            return


def _take(
    pictures: dict[int, UInt8], waiting: list[int], frame: av.VideoFrame, stream: av.video.stream.VideoStream, *, until: float
) -> None:
    """Move the numbers whose nearest frame this is from `waiting` to `pictures`."""
    picture: UInt8 | None = None
    while waiting and waiting[0] / FRAME_RATE < until:
        picture = _upright(frame, stream.sample_aspect_ratio) if picture is None else picture
        pictures[waiting.pop(0)] = picture


def _upright(frame: av.VideoFrame, aspect: Fraction | None) -> UInt8:
    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    height, width = picture.shape[:2]
    if aspect is not None and aspect > 0 and abs(aspect - 1) > _SQUARE_TOLERANCE:
        size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.asarray(cv2.rotate(picture, _TURNS[turns]), np.uint8) if turns else picture
