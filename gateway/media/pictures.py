"""Opens picture files: the first picture of a JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF or HEIC file, as the picture is shown.

All pictures become 8-bit sRGB, upright. Other files, animations and raw MJPEG are videos, which FFmpeg reads.
"""

from __future__ import annotations

import io
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from gateway.media.heif import HeifPicture, find_heif, is_heif
from gateway.media.mp4 import read_at
from gateway.media.opening import MAX_STILL_PIXELS, open_input
from gateway.media.pixels import ColourTags, in_srgb, srgb_of_light
from gateway.safe_paths import open_media_file
from services.common.array_types import Float64, UInt8
from services.common.errors import MediaUnsupportedError

_BEGINNINGS: Final = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n", "PNG"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM", "BMP"),
    (rb"P[1-6]\s", "PPM"),
)
"""First bytes of the formats, and Pillow's names of the formats. Pillow opens a JPEG with further pictures as MPO."""
HEAD_BYTES: Final = 16
"""First bytes of a file that tell a picture."""
_BITS: Final = 258
_PHOTOMETRIC: Final = 262
_ORIENTATION: Final = 274
_PLANES: Final = 284
"""Tags of TIFF: bits of each sample, whether white is 0 (value 0), turns, and whether each colour lies by itself (value 2)."""
_NEXT_JPEG: Final = b"\xff\xd9\xff\xd8\xff"
"""End of a JPEG picture, directly followed by the begin of another one."""
_JPEG_HEAD: Final = 1 << 20
_SPACES: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour spaces of ICC profiles, and Pillow's modes of pictures that have such a profile."""
_EQUAL: Final = 2
"""A profile that changes no colour by more levels is sRGB."""
_SRGB_GAMMA: Final = 1 / 2.2
_SRGB_PRIMARIES: Final = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""Gamma that PNG files state for sRGB, and x and y of white, red, green and blue."""
_ALIKE: Final = 0.02
"""Gammas and primaries of PNG files that differ by less are the same."""
_LEAST_GAMMA: Final = 0.1
_MOST_GAMMA: Final = 10.0
"""Gammas of PNG files beyond are mistakes, and are ignored."""
_LEAST_AREA: Final = 1e-3
"""Least area between red, green and blue in x and y. That of sRGB is 0.11."""

Image.MAX_IMAGE_PIXELS = MAX_STILL_PIXELS


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Description of a picture file.

    Attributes:
        codec: name of the coding, such as jpeg.
        width, height: size of the picture, pixels; before it is turned, in some formats.
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
        head = os.pread(handle, HEAD_BYTES, 0)
    return is_picture_head(head)


def is_picture_head(head: bytes) -> bool:
    """Return whether the first HEAD_BYTES bytes of a file are those of a picture format."""
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
                return PictureFacts(picture.codec, *picture.size, alpha=picture.alpha is not None)
            case _:
                codec = "jpeg" if picture.format == "MPO" else (picture.format or "").lower()
                return PictureFacts(codec, *picture.size, alpha=picture.has_transparency_data)


def read_picture(path: Path) -> UInt8:
    """Return the picture of a file that `picture_facts` describes, uint8 [height, width, 3], or [height, width, 4] if the picture
    may have transparent pixels; RGB.

    Raises:
        MediaUnsupportedError: the picture is cut short or damaged, or has floating-point levels or levels of 32 bits.
    """
    with _opened(path) as picture:
        if isinstance(picture, HeifPicture):
            shown = _with_profile(Image.fromarray(picture.read()), picture.icc_profile)
            return shown if picture.alpha is None else np.dstack([shown, picture.alpha.read()[..., 0]])
        assert picture is not None
        if picture.mode == "F" or _bits(picture) > 16:
            kind = "floating-point levels" if picture.mode == "F" else "levels of 32 bits"
            raise MediaUnsupportedError(
                f"{path}: the picture has {kind}, which do not say what is white; save it with 8 or 16 bits in the program that "
                "wrote it, or give a sequence of EXR with its colour space",
                field="video",
            )
        return _shown(_from_planes(path, picture) if _has_deep_planes(picture) else picture)


def _has_deep_planes(image: Image.Image) -> bool:
    """Return whether each colour of a TIFF picture of 16 bits lies by itself, which Pillow misreads."""
    return image.format == "TIFF" and _tiff_tag(image, _PLANES) == 2 and _bits(image) == 16


def _from_planes(path: Path, image: Image.Image) -> Image.Image:
    """Return a TIFF picture with the pixels that FFmpeg reads, in 8 bits, and with the profile and the orientation of the file."""
    with open_input(path) as container:
        frame = next(container.decode(container.streams.video[0]))
    layout = "rgba64le" if frame.format.name.startswith("gbra") else "rgb48le"
    if frame.format.name.startswith("gray"):
        layout = "gray16le"
    plain = Image.fromarray((np.asarray(frame.to_ndarray(format=layout), np.uint16) >> 8).astype(np.uint8))
    plain.info |= {key: value for key, value in image.info.items() if key == "icc_profile"}
    plain.getexif()[_ORIENTATION] = _tiff_tag(image, _ORIENTATION) or 1
    return plain


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
        named = _format_of(read_at(file, 0, HEAD_BYTES))
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
            yield None if _is_for_ffmpeg(image, handle, path) else image


def _is_for_ffmpeg(image: Image.Image, handle: int, path: Path) -> bool:
    """Return whether a picture file is an animation, which FFmpeg reads."""
    animated = bool(getattr(image, "is_animated", False))
    match image.format:
        case "WEBP" if animated:
            raise MediaUnsupportedError(
                f"{path} is an animation in WebP, which is not read here; save it as MP4, APNG or GIF in the program that wrote it",
                field="video",
            )
        case "PNG":  # further pictures of TIFF and of JPEG with an index are no animation
            return animated
        case "JPEG":
            return _is_video(handle, image.size)
    return False


def _tiff_tag(image: Image.Image, tag: int) -> int:
    """Return the first number of a tag of TIFF; 0: the picture has no such tag."""
    value = image.tag_v2.get(tag, 0) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
    return int(value[0] if isinstance(value, tuple) else value)


def _bits(image: Image.Image) -> int:
    """Return the bits of a sample of TIFF; 0: the picture is in another format."""
    return _tiff_tag(image, _BITS)


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
    bits = _bits(image)
    white_is_zero = image.mode.startswith("I") and image.format == "TIFF" and _tiff_tag(image, _PHOTOMETRIC) == 0
    tags = _png_tags(image)
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # grey of 16 bits, or of 10 to 14 in TIFF
        unused = 16 - bits if 8 < bits < 16 else 0
        levels = (np.asarray(upright).astype(np.int64) >> (8 - unused)).clip(0, 255).astype(np.uint8)
        upright = Image.fromarray(255 - levels if white_is_zero else levels)
    alpha = None
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        upright = upright.getchannel("L") if upright.mode == "LA" else rgba.convert("RGB")
    plain = upright if upright.mode in _SPACES.values() else upright.convert("RGB")
    # The order of precedence of PNG.
    if tags is not None:
        shown = in_srgb(np.asarray(plain.convert("RGB")), tags)
    elif profile or "srgb" in image.info or not gamma or not _LEAST_GAMMA <= gamma <= _MOST_GAMMA:
        shown = _with_profile(plain, profile)
    else:
        stated = primaries if primaries and _span_colours(primaries) else _SRGB_PRIMARIES
        shown = _with_gamma(np.asarray(plain.convert("RGB")), float(gamma), stated)
    return shown if alpha is None else np.dstack([shown, alpha])


def _png_tags(image: Image.Image) -> ColourTags | None:
    """Return the colours that a PNG file states by numbers of ITU-T H.273 (cICP); None: the file does not state them so."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) else None
    if image.format != "PNG" or file is None:
        return None
    offset, head = 8, b""
    while head[4:] != b"IDAT" and len(head := read_at(file, offset, 8)) == 8:
        if head[4:] == b"cICP":
            primaries, transfer, matrix, full = read_at(file, offset + 8, 4)
            return ColourTags(matrix=matrix, color_range=2 if full else 1, primaries=primaries, transfer=transfer)
        offset += 12 + int.from_bytes(head[:4])
    return None


def _with_gamma(levels: UInt8, gamma: float, primaries: Sequence[float]) -> UInt8:
    """Return a picture of PNG in sRGB, uint8 RGB [height, width, 3].

    Args:
        levels: uint8 RGB [height, width, 3].
        gamma: power of light that gives the levels (gAMA).
        primaries: x and y of white, red, green and blue (cHRM).
    """
    if abs(gamma - _SRGB_GAMMA) < _ALIKE and np.abs(np.subtract(primaries, _SRGB_PRIMARIES)).max() < _ALIKE:
        return levels
    light = (np.arange(256, dtype=np.float32) / np.float32(255)) ** np.float32(1 / gamma)
    turn = np.linalg.solve(_xyz_from_rgb(_SRGB_PRIMARIES), _xyz_from_rgb(primaries))
    return srgb_of_light(levels, light, turn)


def _span_colours(primaries: Sequence[float]) -> bool:
    """Return whether x and y of white, red, green and blue are of real colours, and there are colours between these three."""
    if len(primaries) != 8 or min(primaries[1::2]) < _LEAST_AREA:
        return False
    red, green, blue = np.reshape(primaries, (4, 2))[1:]
    return bool(abs(np.linalg.det([green - red, blue - red])) / 2 > _LEAST_AREA)


def _xyz_from_rgb(primaries: Sequence[float]) -> Float64:
    """Return the matrix from linear light of primaries to CIE XYZ, float64 [3, 3]."""
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    columns = np.stack(colours, axis=1)
    return np.asarray(columns * np.linalg.solve(columns, white), np.float64)


def _with_profile(image: Image.Image, profile: bytes | None) -> UInt8:
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
