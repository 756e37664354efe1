"""The small picture of a shot in lists and reports."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from services.common.array_types import Bool, UInt8

WIDTH: Final = 320
"""Most columns of a thumbnail, pixels."""
_NEAR: Final = 750
"""Frames from the beginning of the film among which the picture is chosen, because all frames before the picture are decoded."""
_QUALITY: Final = 85


def thumbnail_of(film: MediaInfo, rendered: Bool) -> bytes:
    """Return one frame of a film as JPEG (`shown_frame`, `jpeg_of`).

    Args:
        film: the film of a dub.
        rendered: frames whose mouth is rendered, bool [T].

    Raises:
        MediaUnsupported: the film cannot be read.
    """
    frame = shown_frame(rendered)
    with VideoReader(film) as reader:
        return jpeg_of(to_rgb(next(reader.frames(frame, frame + 1))))


def shown_frame(rendered: Bool) -> int:
    """Return the frame that a thumbnail shows: the middle one of the rendered frames near the beginning of the film.

    If only later frames are rendered, the first of them is shown. If no frame is rendered, the middle one is shown.
    """
    (frames,) = np.nonzero(rendered)
    if not len(frames):
        return min(len(rendered), _NEAR) // 2
    near = frames[frames < _NEAR]
    return int(near[len(near) // 2]) if len(near) else int(frames[0])


def jpeg_of(picture: UInt8) -> bytes:
    """Return a picture, uint8 [H, W, 3] RGB, as JPEG of at most WIDTH columns, in the same proportions."""
    height, width = picture.shape[:2]
    if width > WIDTH:
        size = (WIDTH, max(1, round(height * WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    written, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise ValueError(f"no JPEG of a picture of {width} x {height} pixels")
    return data.tobytes()
