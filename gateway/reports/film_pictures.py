"""Pictures and sound of films, as reports show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np

from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.reports.side_by_side import beside
from services.common.array_types import Float32, UInt8

MOST_FRAMES: Final = 750
"""Most frames of curves, video and tracking, so that the report of a long film stays small."""
VIDEO_HEIGHT: Final = 360


def pictures_of(info: MediaInfo, wanted: set[int]) -> dict[int, UInt8]:
    """Return the wanted frames of a film, uint8 [H, W, 3] each, RGB, by index."""
    if not wanted:
        return {}
    with VideoReader(info) as reader:
        return {frame.index: to_rgb(frame) for frame in reader.frames(0, max(wanted) + 1) if frame.index in wanted}


def cut_around(picture: UInt8, box: tuple[int, int, int, int]) -> UInt8:
    """Return a square of a picture around a box (left, top, width, height, pixels), uint8 [256, 256, 3]."""
    left, top, width, height = box
    side = int(1.2 * max(width, height))
    x = int(np.clip(left + (width - side) // 2, 0, max(0, picture.shape[1] - side)))
    y = int(np.clip(top + (height - side) // 2, 0, max(0, picture.shape[0] - side)))
    return np.asarray(cv2.resize(picture[y : y + side, x : x + side], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)


def side_by_side(source: MediaInfo, result: MediaInfo) -> Iterator[UInt8]:
    """Yield the first frames of two films of equal length, beside each other."""
    with VideoReader(source) as before, VideoReader(result) as after:
        for left, right in zip(before.frames(0, MOST_FRAMES), after.frames(0, MOST_FRAMES), strict=True):
            yield beside(_reduced(to_rgb(left)), _reduced(to_rgb(right)))


def _reduced(picture: UInt8) -> UInt8:
    height, width = picture.shape[:2]
    size = (max(2, int(width * VIDEO_HEIGHT / height) // 2 * 2), VIDEO_HEIGHT)
    flags = cv2.INTER_AREA if height > VIDEO_HEIGHT else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=flags), np.uint8)


def sound_of(result: MediaInfo) -> Float32 | None:
    """Return the sound of the first MOST_FRAMES frames of a film, float32 [N], mono; None: the film has no sound."""
    if not result.audio:
        return None
    limit = MOST_FRAMES / float(result.video.average_rate) * result.audio[0].sample_rate_hz
    pieces: list[Float32] = []
    for chunk in SoundReader(result.path, origin=result.video.start):
        pieces.append(chunk.samples.mean(axis=1))
        if chunk.start_sample > limit:
            break
    return np.concatenate(pieces) if pieces else None


def sound_rate_of(result: MediaInfo) -> int:
    """Return the sample rate of a film's sound, Hz; 16000 without sound."""
    return result.audio[0].sample_rate_hz if result.audio else 16000
