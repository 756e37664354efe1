"""Which frames of an actor's footage a live stream shows."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo, VideoInfo
from services.common.array_types import Array, UInt8
from services.common.wire.timeline import MOTION_RATE

MAX_FRAMES: Final = 75
"""Most frames of a performance: three seconds at MOTION_RATE, about 200 MB at 1280 x 720."""
MIN_FRAMES: Final = 5
"""Fewest consecutive usable frames of the footage that a live stream can show."""


def unbroken_stretches(faces: Array) -> list[Array]:
    """Return the unbroken stretches of usable frames that have MIN_FRAMES.

    Args:
        faces: FACE_RECORD of the person, in the order of the frames.
    """
    usable = faces[faces["reason"] == common_pb2.FRAME_REASON_DUBBED]
    breaks = np.nonzero(np.diff(usable["frame"]) != 1)[0] + 1
    return [stretch for stretch in np.split(usable, breaks) if len(stretch) >= MIN_FRAMES]


def at_motion_rate(stretch: Array, video: VideoInfo) -> Array:
    """Return, for each 1 / MOTION_RATE s of a stretch, the record of the frame that is nearest in time, at most MAX_FRAMES.

    Footage at MOTION_RATE stays as it is. Other footage is played at its own speed: frames are left out or repeated.

    Args:
        stretch: FACE_RECORD of consecutive frames.
        video: the footage.
    """
    times = video.pts[stretch["frame"]] - video.pts[stretch["frame"][0]]
    tick = MOTION_RATE * video.time_base
    count = min(MAX_FRAMES, round(int(times[-1]) * tick) + 1)
    wanted = np.array([float(index / tick) for index in range(count)])
    # Of two frames that are equally near, the earlier one.
    return stretch[np.searchsorted((times[1:] + times[:-1]) / 2, wanted)]


def pictures_of(shown: Array, film: MediaInfo) -> tuple[UInt8, ...]:
    """Return the pictures of frames, each uint8 [H, W, 3], RGB. A frame that is repeated is decoded once.

    Args:
        shown: FACE_RECORD of the frames.
        film: the footage.

    Raises:
        MediaUnsupported: the footage cannot be decoded.
    """
    numbers = shown["frame"].tolist()
    wanted = set(numbers)
    with VideoReader(film) as reader:
        frames = reader.frames(min(wanted), max(wanted) + 1)
        pictures = {frame.index: to_rgb(frame) for frame in frames if frame.index in wanted}
    return tuple(pictures[number] for number in numbers)
