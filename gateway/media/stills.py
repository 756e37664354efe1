"""Still pictures as footage: a video of one frame, in the picture format that videos are shown in."""

from __future__ import annotations

import mimetypes
from dataclasses import replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Final

import cv2
import numpy as np

from gateway.media.background import BACKGROUND_SUFFIX, background_writer, open_background, own_timeline
from gateway.media.inspection import inspect_video
from gateway.media.locations import is_url
from gateway.media.pictures import begins_like_picture
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.reader import VideoReader, from_rgb, plane_views, to_rgb
from gateway.media.types import DecodedFrame, HdrMetadata, MediaInfo, VideoInfo, orientation
from services.common.array_types import UInt8
from services.common.errors import InvalidRequestError, MediaUnsupportedError

STILL_RATE: Final = Fraction(25)
"""Frames per second of a video of a still."""
MAX_SIDE: Final = 1920
"""Longest side of a video of a still, pixels. Larger stills are reduced, because videos of a photograph's size are of no use."""
MIN_SIDE: Final = 64
_BT709: Final = ColourTags(matrix=1, color_range=1, primaries=1, transfer=1)


def is_still(info: MediaInfo) -> bool:
    """Return whether footage is a single picture."""
    return info.video.num_frames == 1


def is_still_file(path: Path) -> bool:
    """Return whether a file from outside is a single picture, by its content. A file that cannot be read is none. Blocks.

    A file that does not begin like a picture is not read further.
    """
    try:
        return begins_like_picture(path) and is_still(inspect_video(path))
    except MediaUnsupportedError:
        return False


def is_named_like_picture(name: str) -> bool:
    """Return whether a path or URL has the ending of a picture format."""
    ending = PurePosixPath(name.partition("?")[0] if is_url(name) else name).suffix
    return (mimetypes.guess_type(f"picture{ending}", strict=False)[0] or "").startswith("image/")


def still_video_info(info: MediaInfo) -> MediaInfo:
    """Return the description of a still as a video of one frame: upright, square pixels, yuv420p in BT.709, even sides, at most
    MAX_SIDE.

    Raises:
        InvalidRequestError: the picture is too small.
    """
    width, height = info.video.orientation.upright_size
    scale = min(1.0, MAX_SIDE / max(width, height))
    width, height = round(width * scale) // 2 * 2, round(height * scale) // 2 * 2
    if min(width, height) < MIN_SIDE:
        raise InvalidRequestError(f"{info.path}: a picture of {width} x {height} is too small to be an actor", field="footage")
    timeline = own_timeline(info, 1)
    video = replace(
        plain_video_info(timeline.video, width, height), codec="ffv1", time_base=1 / STILL_RATE, average_rate=STILL_RATE
    )
    return replace(timeline, video=video)


def plain_video_info(video: VideoInfo, width: int, height: int) -> VideoInfo:
    """Return the description of a video that `frame_of_picture` makes frames for: upright, square pixels, yuv420p in BT.709.

    Args:
        video: gives what the pictures do not decide, such as the times.
        width: even number of pixels.
        height: even number of pixels.
    """
    return replace(
        video,
        stored_format="yuv420p",
        pixel=pixel_format("yuv420p"),
        orientation=orientation(width, height, None, None),
        colour=_BT709,
        field_order="progressive",
        hdr=HdrMetadata(),
        unkept=(),
    )


def check_opaque(info: MediaInfo) -> None:
    """Check that a still has no transparent pixels, because a video needs a background.

    Raises:
        InvalidRequestError: the picture has transparent pixels.
        MediaUnsupportedError: the picture cannot be read.
    """
    if not info.video.pixel.alpha:
        return
    with VideoReader(info) as reader:
        alpha = next(iter(reader)).planes[-1]
    clear = float((alpha < (1 << info.video.pixel.bits) - 1).mean())
    if clear:
        white = f"color=white:size={info.video.width}x{info.video.height}"
        raise InvalidRequestError(
            f"{info.path}: {max(clear, 0.001):.1%} of the pixels are transparent, and a video needs a background: put the picture "
            f"on one first (ffmpeg -f lavfi -i {white} -i IN -filter_complex overlay=format=auto -frames:v 1 OUT.png)",
            field="footage",
        )


def open_footage(info: MediaInfo, folder: Path, *, threads: int) -> MediaInfo:
    """Return footage that is ready to use. A video is returned as it is. From a still, a video of one frame is written into
    `folder`.

    Raises:
        MediaUnsupportedError: the picture cannot be read.
        InvalidRequestError: the picture is too small, or has transparent pixels.
    """
    if not is_still(info):
        return info
    check_opaque(info)
    timeline = still_video_info(info)
    target = folder / f"still{BACKGROUND_SUFFIX}"
    with VideoReader(info) as reader:
        picture = to_rgb(next(iter(reader)))
    size = (timeline.video.width, timeline.video.height)
    if size != (picture.shape[1], picture.shape[0]):
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    with background_writer(target, timeline, threads) as writer:
        writer.write(frame_of_picture(picture, 0, timeline.video))
    return open_background(target, timeline)


def frame_of_picture(picture: UInt8, index: int, video: VideoInfo) -> DecodedFrame:
    """Return frame `index` of a video that `plain_video_info` described, from uint8 RGB [height, width, 3]."""
    shown = from_rgb(picture, video.pixel, video.colour_model)
    return DecodedFrame(index, int(video.pts[index]), plane_views(shown, video, writable=False), shown, video)
