"""The small picture of a shot in lists and reports."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from gateway.media.types import MediaInfo
from gateway.reports.film_pictures import pictures_of
from services.common.array_types import Bool, UInt8

WIDTH: Final = 320
"""Most columns of a thumbnail, pixels."""
_QUALITY: Final = 85


def thumbnail_of(film: MediaInfo, rendered: Bool) -> bytes:
    """Return one frame of a film as JPEG.

    Args:
        film: the film of a dub.
        rendered: frames whose mouth is rendered, bool [T].

    Raises:
        MediaUnsupported: the film cannot be read.
    """
    frame = shown_frame(rendered)
    return jpeg_of(pictures_of(film, {frame})[frame])


def shown_frame(rendered: Bool) -> int:
    """Return the frame that a thumbnail shows: the middle one of the rendered frames, or of all frames if none is rendered."""
    (frames,) = np.nonzero(rendered)
    return int(frames[len(frames) // 2]) if len(frames) else len(rendered) // 2


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
