"""Still pictures as footage: a film of one frame, in the picture format that films are shown in."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import numpy.typing as npt

from gateway.media.background_film import FILM_SUFFIX, background_writer, open_background, own_timeline
from gateway.media.orientation import orientation
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.reader import ACCURATE, VideoReader, plane_views, to_rgb
from gateway.media.regular_file import reading
from gateway.media.types import DecodedFrame, MediaInfo, VideoInfo
from services.common.errors import InvalidRequest

Pixels = npt.NDArray[np.uint8]

STILL_RATE: Final = Fraction(25)
"""Frames a second of a film that is made from a still."""
MAX_SIDE: Final = 1920
"""Stills with a longer side are reduced to it: a film of a photograph's size is of no use."""
MIN_SIDE: Final = 64
_BT709: Final = ColourTags(matrix=1, color_range=1, primaries=1, transfer=1)


def is_still(info: MediaInfo) -> bool:
    """Whether footage is a single picture."""
    return info.video.num_frames == 1


def as_shown(info: MediaInfo) -> MediaInfo:
    """A still's description as a film of one frame: upright, square pixels, yuv420p in BT.709, even sides, at most MAX_SIDE.

    Raises:
        InvalidRequest: the picture is too small.
    """
    width, height = info.video.orientation.upright_size
    scale = min(1.0, MAX_SIDE / max(width, height))
    width, height = round(width * scale) // 2 * 2, round(height * scale) // 2 * 2
    if min(width, height) < MIN_SIDE:
        raise InvalidRequest(f"{info.path}: a picture of {width} x {height} is too small to be an actor", field="footage")
    film = own_timeline(info, 1)
    video = replace(
        film.video,
        codec="ffv1",
        stored_format="yuv420p",
        pixel=pixel_format("yuv420p"),
        orientation=orientation(width, height, None, None),
        colour=_BT709,
        time_base=1 / STILL_RATE,
        average_rate=STILL_RATE,
        interlaced=False,
    )
    return replace(film, video=video)


def open_footage(info: MediaInfo, folder: Path, *, threads: int) -> MediaInfo:
    """Footage ready to be worked on: a film as it is; of a still, the film of one frame, which is written into `folder`.

    Raises:
        MediaUnsupported: a picture that can't be read.
        InvalidRequest: a picture that is too small.
    """
    if not is_still(info):
        return info
    film = as_shown(info)
    target = folder / f"still{FILM_SUFFIX}"
    picture = _picture(info)
    size = (film.video.width, film.video.height)
    if size != (picture.shape[1], picture.shape[0]):
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    with background_writer(target, film, threads) as writer:
        writer.write(frame_of_picture(picture, 0, film.video))
    return open_background(target, film)


def _picture(info: MediaInfo) -> Pixels:
    """The picture as it is shown: uint8 RGB. OpenCV minds a photograph's EXIF, mirrored ones too."""
    with reading(info.path, field="footage") as handle:
        found = cv2.imread(f"/proc/self/fd/{handle}", cv2.IMREAD_COLOR_RGB)
    if found is not None:
        return np.asarray(found, np.uint8)
    with VideoReader(info) as reader:
        return to_rgb(next(iter(reader)))


def frame_of_picture(picture: Pixels, index: int, video: VideoInfo) -> DecodedFrame:
    """Frame `index` of a film that is described by `as_shown`, from uint8 RGB [height, width, 3]."""
    shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
        format=video.pixel.name,
        dst_colorspace=video.colour_model.swscale_matrix,
        src_color_range=2,
        dst_color_range=1,
        interpolation=ACCURATE,
        threads=1,
    )
    return DecodedFrame(index, int(video.pts[index]), plane_views(shown, video, writable=False), shown, video)
