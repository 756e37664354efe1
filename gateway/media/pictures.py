"""Opens picture files: the first picture of a JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF or HEIC file, as the picture is shown.

All pictures become 8-bit sRGB, upright. Other files, animations and raw MJPEG are videos, which FFmpeg reads.
"""

from __future__ import annotations

import io
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from gateway.media.heif import HeifPicture, find_heif, is_heif
from gateway.media.mp4 import read_at
from gateway.media.opening import MAX_STILL_PIXELS
from gateway.safe_paths import open_media_file
from services.common.array_types import UInt8
from services.common.errors import MediaUnsupportedError

_BEGINNINGS: Final = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n", "PNG"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM", "BMP"),
    (rb"P[1-6]\s", "PPM"),
    (rb"....ftyp(avif|mif1)", "AVIF"),
)
"""First bytes of the formats, and Pillow's names of the formats. Pillow opens a JPEG with further pictures as MPO."""
_HEAD_BYTES: Final = 16
_ANIMATED: Final = frozenset({"PNG", "WEBP", "AVIF"})
"""Formats whose further pictures are an animation. Those of JPEG and TIFF are other pictures."""
_TURNED: Final = (5, 6, 7, 8)
_ORIENTATION: Final = 0x112
"""EXIF's tag of the orientation, and its values for pictures that lie on their side."""
_NEXT_JPEG: Final = b"\xff\xd9\xff\xd8\xff"
"""End of a JPEG picture, directly followed by the begin of another one."""
_JPEG_HEAD: Final = 1 << 20
_SPACES: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour spaces of ICC profiles, and Pillow's modes of pictures that have such a profile."""
_EQUAL: Final = 2
"""A profile that changes no colour by more levels is sRGB."""

Image.MAX_IMAGE_PIXELS = MAX_STILL_PIXELS


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Description of a picture file.

    Attributes:
        codec: name of the coding, such as jpeg.
        width, height: size of the upright picture, pixels.
        alpha: whether the picture may have transparent pixels.
    """

    codec: str
    width: int
    height: int
    alpha: bool


def begins_like_picture(path: Path) -> bool:
    """Return whether the first bytes of a file are those of a picture format. An animation, or raw MJPEG, begins in the same way.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, or may not be read.
    """
    with open_media_file(path, field="video") as handle:
        head = os.pread(handle, _HEAD_BYTES, 0)
    return _format_of(head) is not None or head.startswith(b"GIF8") or is_heif(head)


def picture_facts(path: Path) -> PictureFacts | None:
    """Return the description of a picture file, without decoding the picture; None: the file is read as a video.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, may not be read, or its header is damaged.
    """
    with _opened(path) as picture:
        match picture:
            case None:
                return None
            case HeifPicture():
                return PictureFacts("hevc", *picture.size, alpha=False)
            case _:
                width, height = picture.size
                if picture.getexif().get(_ORIENTATION) in _TURNED:
                    width, height = height, width
                codec = "jpeg" if picture.format == "MPO" else (picture.format or "").lower()
                return PictureFacts(codec, width, height, alpha=picture.has_transparency_data)


def read_picture(path: Path) -> UInt8:
    """Return the picture of a file that `picture_facts` describes, uint8 [height, width, 3], or [height, width, 4] if the picture
    may have transparent pixels; RGB.

    Raises:
        MediaUnsupportedError: the picture is cut short or damaged, or has floating-point levels.
    """
    with _opened(path) as picture:
        if isinstance(picture, HeifPicture):
            return _in_srgb(Image.fromarray(picture.read()), picture.icc_profile)
        assert picture is not None
        if picture.mode == "F":
            raise MediaUnsupportedError(
                f"{path}: the picture has floating-point levels, which do not say what is white; save it with 8 or 16 bits",
                field="video",
            )
        return _shown(picture)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of Pillow name a file."""
    try:
        yield
    except (MediaUnsupportedError, MemoryError):
        raise
    except Exception as problem:  # Pillow has no base of the errors that damaged files cause
        raise MediaUnsupportedError(
            f"{path}: the picture is cut short or damaged ({problem}); copy the file again, or save the picture anew",
            field="video",
        ) from problem


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | HeifPicture | None]:
    """Give the picture of a file, not yet decoded; None: the file is no picture file."""
    with open_media_file(path, field="video") as handle, open(handle, "rb", closefd=False) as file, _named(path):
        heif = find_heif(file, path)
        if heif is not None:
            yield heif
            return
        named = _format_of(read_at(file, 0, _HEAD_BYTES))
        if named is None:
            yield None
            return
        file.seek(0)
        try:
            image = Image.open(file, formats=(named,))
        except (UnidentifiedImageError, Image.DecompressionBombError):
            yield None  # FFmpeg says what is wrong
            return
        with image:
            animated = image.format in _ANIMATED and getattr(image, "is_animated", False)
            yield None if animated or (image.format == "JPEG" and _is_video(handle, image.size)) else image


def _format_of(head: bytes) -> str | None:
    """Return Pillow's name of the format of a picture file, by the file's first bytes; None: the file is another one."""
    return next((name for beginning, name in _BEGINNINGS if re.match(beginning, head, re.DOTALL)), None)


def _is_video(handle: int, size: tuple[int, int]) -> bool:
    """Return whether a JPEG picture is the first one of a video: a picture of the same size follows."""
    with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
        offset = data.find(_NEXT_JPEG)
        if offset < 0:
            return False
        head = io.BytesIO(data[offset + 2 : offset + 2 + _JPEG_HEAD])
    try:
        with Image.open(head, formats=("JPEG",)) as following:
            return following.size == size
    except (UnidentifiedImageError, OSError):
        return False


def _shown(image: Image.Image) -> UInt8:
    """Return a picture upright and in sRGB."""
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # grey of 16 bits
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not upright.has_transparency_data:
        plain = upright if upright.mode in _SPACES.values() else upright.convert("RGB")
        return _in_srgb(plain, profile)
    rgba = upright.convert("RGBA")
    return np.dstack([_in_srgb(rgba.convert("RGB"), profile), np.asarray(rgba.getchannel("A"))])


def _in_srgb(image: Image.Image, profile: bytes | None) -> UInt8:
    """Return a picture with an ICC profile in sRGB, uint8 [height, width, 3]. A damaged profile is left out.

    Args:
        image: RGB, grey or CMYK.
        profile: profile of the picture; None: none.
    """
    if profile:
        try:
            space = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if _SPACES.get(space.profile.xcolor_space) == image.mode:
                transform = ImageCms.buildTransform(
                    space, ImageCms.createProfile("sRGB"), image.mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
                )
                if image.mode != "RGB" or _changes(transform):
                    image = ImageCms.applyTransform(image, transform) or image
        except (ImageCms.PyCMSError, OSError):
            pass
    return np.array(image.convert("RGB"), np.uint8)


def _changes(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a transform changes colours. Pictures in sRGB keep their levels, although transforms round."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    changed = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return changed is not None and int(np.abs(np.asarray(changed).astype(int) - colours).max()) > _EQUAL
