"""Pixel formats as planes: the depth of samples, the position of chroma samples, and the matrix between RGB and Y'CbCr.

Frames are processed in their own planes. Planar Y'CbCr (4:2:0, 4:2:2, 4:4:4, 4:1:1, 4:4:0, 8 to 16 bits, with or without alpha),
grey and planar RGB stay as they are. Packed and semi-planar formats are rearranged without loss into the planar format of the same
samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Final

import av
import numpy as np
from av.video.reformatter import Interpolation

from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import MediaUnsupportedError

ACCURATE: Final = int(Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND)
"""Flags of swscale. Without accurate rounding, colours are one to two levels too dark."""
_REARRANGED: Final = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "rgb0": "gbrp",
    "bgr0": "gbrp",
    "0rgb": "gbrp",
    "0bgr": "gbrp",
    "pal8": "gbrp",
    "rgba": "gbrap",
    "bgra": "gbrap",
    "argb": "gbrap",
    "abgr": "gbrap",
}
"""Formats whose samples are not one component a plane -> the planar format that holds the same samples."""

_SUBSAMPLING: Final = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "411": (4, 1), "440": (1, 2)}
_PLANAR_YUV: Final = re.compile(r"^yuv(a|j)?(444|422|420|411|440)p(9|10|12|14|16)?(le)?$")
_PLANAR_RGB: Final = re.compile(r"^gbr(a)?p(9|10|12|14|16)?(le)?$")
_GREY: Final = re.compile(r"^gray(9|10|12|14|16)?(le)?$")
_FINE: Final = 16
"""Steps of a level of standard range on the way back."""
_WHITE_CD_M2: Final = 203.0
_PEAK_CD_M2: Final = 1000.0
"""Luminance that is shown as white: the nominal peak of HLG."""
_WHITE_SHARE: Final = 0.88
"""Share of standard range up to reference white."""
_BT709_FROM_BT2020: Final = np.array([[1.6605, -0.5877, -0.0728], [-0.1246, 1.1330, -0.0084], [-0.0182, -0.1006, 1.1188]])
_P3: Final = 12
"""Number of the primaries of Display P3 (ITU-T H.273, table 2)."""
_SRGB_FROM_P3: Final = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32)
_STRIP: Final = 256
"""Rows of a picture that are changed at once."""
_PQ, _HLG = 16, 18
"""Transfer characteristics (ITU-T H.273, table 3)."""
_LUMA_WEIGHTS: Final = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Kr and Kb by matrix coefficients (ITU-T H.273, table 4)."""
UNSPECIFIED: Final = 2
"""Matrix coefficients, colour primaries or transfer characteristics that a stream does not state."""
_SWSCALE: Final = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """Layout of the samples of a planar frame.

    Attributes:
        name: FFmpeg's name, such as yuv420p10le.
        bits: bits a sample, 8 to 16.
        kind: "yuv" (planes Y, Cb, Cr), "rgb" (planes G, B, R) or "grey" (plane Y).
        chroma_step: luma samples a chroma sample, horizontally and vertically; (1, 1) without subsampling.
        alpha: whether a plane of alpha follows, which is never touched.
        full_range_name: whether the name itself says full range (yuvj...).
    """

    name: str
    bits: int
    kind: str
    chroma_step: tuple[int, int]
    alpha: bool
    full_range_name: bool

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """uint8 for 8 bits, else little-endian uint16."""
        return np.dtype(np.uint8) if self.bits == 8 else np.dtype("<u2")

    @property
    def num_colour_planes(self) -> int:
        """3, or 1 for grey."""
        return 1 if self.kind == "grey" else 3

    def plane_shape(self, plane: int, width: int, height: int) -> tuple[int, int]:
        """Return rows and columns of a plane of a frame of `width` x `height`. Odd sizes round up."""
        if self.kind == "yuv" and plane in (1, 2):
            step_x, step_y = self.chroma_step
            return -(-height // step_y), -(-width // step_x)
        return height, width


def planar_name(name: str) -> str:
    """Return the planar format that holds the samples of format `name` without loss. A planar format is returned as it is."""
    if name.endswith("be") and any(planar.match(name[:-2] + "le") for planar in (_PLANAR_YUV, _PLANAR_RGB, _GREY)):
        return name[:-2] + "le"
    return _REARRANGED.get(name, name)


def pixel_format(name: str) -> PixelFormat:
    """Return the description of FFmpeg's planar pixel format `name`.

    Raises:
        MediaUnsupportedError: frames of this format cannot be processed in their own planes.
    """
    if match := _PLANAR_YUV.match(name):
        letter, step, bits = match[1] or "", _SUBSAMPLING[match[2]], int(match[3] or 8)
        return PixelFormat(name, bits, "yuv", step, letter == "a", letter == "j")
    if match := _PLANAR_RGB.match(name):
        return PixelFormat(name, int(match[2] or 8), "rgb", (1, 1), bool(match[1]), False)
    if match := _GREY.match(name):
        return PixelFormat(name, int(match[1] or 8), "grey", (1, 1), False, False)
    raise MediaUnsupportedError(
        f"the pixel format {name} is not supported; convert the footage first (ffmpeg -i IN -pix_fmt yuv422p10le OUT)",
        field="video",
    )


def filter_graph(name: str, argument: str, size: tuple[int, int], pixels: av.VideoFormat, time_base: Fraction) -> av.filter.Graph:
    """Return a graph of one of FFmpeg's filters: pictures are pushed and pulled.

    Args:
        name: name of the filter.
        argument: argument of the filter.
        size: width and height of the pictures, samples.
        pixels: pixel format of the pictures.
        time_base: seconds per tick of the pictures' times.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=pixels, time_base=time_base)
    chosen = graph.add(name, argument)
    source.link_to(chosen)
    chosen.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


@dataclass(frozen=True, slots=True)
class ColourTags:
    """The four colour tags of a stream, as the numbers of ITU-T H.273.

    Attributes:
        matrix: matrix coefficients (0 RGB, 1 BT.709, 2 unspecified, 5 and 6 BT.601, 9 BT.2020).
        color_range: 0 unspecified, 1 limited, 2 full.
        primaries: colour primaries; 2 unspecified.
        transfer: transfer characteristics; 2 unspecified.
    """

    matrix: int = 2
    color_range: int = 0
    primaries: int = 2
    transfer: int = 2


@dataclass(frozen=True, slots=True)
class ColourModel:
    """The map between R'G'B' in [0, 1] and the digital samples of one pixel format.

    samples[c] = matrix[c] @ rgb + offset[c], in the order of the planes; `low` and `high` are the legal digital values.
    """

    matrix: Float64
    offset: Float64
    low: int
    high: int
    swscale_matrix: int
    full_range: bool
    hdr: HdrCurve | None = None
    """How HDR footage is shown to the networks; None: the footage has standard dynamic range."""


@dataclass(frozen=True, slots=True, eq=False)
class HdrCurve:
    """The map between R'G'B' of HDR footage (ITU-R BT.2100, PQ or HLG) and R'G'B' of standard range, as people are enrolled.

    Up to reference white (203 cd/m2, ITU-R BT.2408) the curve is a power of 1/2.2, from there to the peak a logarithm. Then the
    matrix from BT.2020 to BT.709 (ITU-R BT.2087), which is meant for linear light, changes the primaries. The map is for networks
    and pictures. The inverse is exact for colours inside of BT.709 and up to the peak.

    Attributes:
        levels: float32 [256], level of standard range, 0 to 255, of each level of the footage, the same for red, green and blue.
        levels_back: float32 [255 * 16 + 1], level of the footage of each sixteenth of a level of standard range.
        primaries: float64 [3, 3], applied to levels of standard range.
    """

    levels: Float32
    levels_back: Float32
    primaries: Float64

    def shown(self, picture: UInt8) -> UInt8:
        """Return a picture in standard range, uint8 RGB [rows, columns, 3]."""
        # The process that inspects a file imports this module, and starts a third faster without OpenCV.
        import cv2

        turned = cv2.transform(cv2.LUT(picture, self.levels), self.primaries)
        return np.asarray(cv2.add(turned, np.zeros(4), dtype=cv2.CV_8U), np.uint8)

    def shown_luma(self, luma: Float32) -> Float32:
        """Return luma in levels of 255 in standard range, float32 of the same shape."""
        return np.asarray(np.interp(luma, np.arange(256.0), self.levels), np.float32)

    def coded(self, picture: Float32) -> Float32:
        """Return a picture of standard range in levels of the footage, float32 RGB [rows, columns, 3], 0 to 255."""
        import cv2

        fine = cv2.transform(picture, np.linalg.inv(self.primaries) * _FINE)
        return np.asarray(self.levels_back[np.clip(np.rint(fine), 0, 255 * _FINE).astype(np.int16)], np.float32)


def _pq_light(signal: Float64) -> Float64:
    """Return the luminance of a PQ signal of 0 to 1, cd/m2 (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0.0) / (c2 - c3 * power)) ** (1 / m1), np.float64)


def _hlg_light(signal: Float64) -> Float64:
    """Return the luminance of a grey HLG signal of 0 to 1 on a display of 1000 cd/m2 (ITU-R BT.2100, system gamma 1.2)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(1000.0 * scene**1.2, np.float64)


@cache
def _hdr_curve(tags: ColourTags) -> HdrCurve | None:
    lights: dict[int, Callable[[Float64], Float64]] = {_PQ: _pq_light, _HLG: _hlg_light}
    light = lights.get(tags.transfer)
    if light is None:
        return None
    white = light(np.linspace(0.0, 1.0, 256)) / _WHITE_CD_M2
    dark = _WHITE_SHARE * np.minimum(white, 1.0) ** (1 / 2.2)
    bright = (1.0 - _WHITE_SHARE) * np.log(np.maximum(white, 1.0)) / np.log(_PEAK_CD_M2 / _WHITE_CD_M2)
    levels = (255.0 * np.minimum(dark + bright, 1.0)).astype(np.float32)
    # Levels above the peak are all shown as white.
    rising = int(np.searchsorted(levels, levels[-1])) + 1
    back = np.interp(np.arange(255 * _FINE + 1) / _FINE, levels[:rising], np.arange(float(rising)))
    return HdrCurve(levels, back.astype(np.float32), _BT709_FROM_BT2020 if tags.primaries in (2, 9) else np.eye(3))


def in_srgb(levels: UInt8, tags: ColourTags) -> UInt8:
    """Return a picture in sRGB, uint8 RGB [height, width, 3]: HDR in standard range, and Display P3 in the primaries of sRGB."""
    hdr = _hdr_curve(tags)
    if hdr is not None:
        return _in_strips(levels, hdr.shown)
    if tags.primaries != _P3:
        return levels
    coded = np.arange(256, dtype=np.float32) / 255
    return srgb_of_light(levels, np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4), _SRGB_FROM_P3)


def srgb_of_light(levels: UInt8, light: Float32, turn: Float32 | Float64) -> UInt8:
    """Return a picture in sRGB, uint8 RGB [height, width, 3].

    Args:
        levels: uint8 RGB [height, width, 3], in any primaries.
        light: float32 [256], linear light, 0 to 1, of each level.
        turn: float [3, 3], matrix from linear light of these primaries to linear light of sRGB.
    """
    return _in_strips(levels, lambda strip: _srgb_levels(np.asarray(light[strip] @ turn.T, np.float32)))


def _in_strips(levels: UInt8, change: Callable[[UInt8], UInt8]) -> UInt8:
    """Return a changed picture. A few rows are changed at once: floating-point copies of a large picture need a lot of memory."""
    changed = np.empty_like(levels)
    for top in range(0, len(levels), _STRIP):
        changed[top : top + _STRIP] = change(levels[top : top + _STRIP])
    return changed


def _srgb_levels(light: Float32) -> UInt8:
    """Return linear light of sRGB, 0 to 1, as levels, uint8 of the same shape. Light beyond is cut."""
    light = light.clip(0.0, 1.0)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(shown * 255), np.uint8)


def effective_matrix(tags: ColourTags, width: int, height: int) -> int:
    """Return the matrix coefficients that players use: the tag, or by size (BT.709 from 1280 wide or above 576 high)."""
    if tags.matrix in _LUMA_WEIGHTS:
        return tags.matrix
    return 1 if max(width, height) >= 1280 or min(width, height) > 576 else 6


def completed(tags: ColourTags, width: int, height: int) -> ColourTags:
    """Return the tags with the players' assumptions in place of unspecified tags."""
    matrix = effective_matrix(tags, width, height)
    primaries, transfer = {1: (1, 1), 9: (9, 14)}.get(matrix, (6, 6))
    return ColourTags(
        matrix if tags.matrix == 2 else tags.matrix,
        tags.color_range or 1,
        primaries if tags.primaries == 2 else tags.primaries,
        transfer if tags.transfer == 2 else tags.transfer,
    )


def colour_model(pixel: PixelFormat, tags: ColourTags, width: int, height: int) -> ColourModel:
    """Return the map between RGB and the samples of a stream of this format, these tags and this size.

    Unspecified range is limited, except for planar RGB and yuvj formats. Grey is Y' alone, in full range whatever its tag
    says, because swscale reads grey so when it makes the RGB of a frame.
    """
    top = (1 << pixel.bits) - 1
    if pixel.kind == "rgb":
        matrix = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]) * top
        return ColourModel(matrix, np.zeros(3), 0, top, 0, True, _hdr_curve(tags))
    coefficients = effective_matrix(tags, width, height)
    kr, kb = _LUMA_WEIGHTS[coefficients]
    luma = np.array([kr, 1.0 - kr - kb, kb])
    unit = np.stack(
        [luma, (np.array([0.0, 0.0, 1.0]) - luma) / (2 * (1 - kb)), (np.array([1.0, 0.0, 0.0]) - luma) / (2 * (1 - kr))]
    )
    full = pixel.full_range_name or pixel.kind == "grey" or tags.color_range == 2
    step = 1 << (pixel.bits - 8)
    scale = np.array([top, top, top] if full else [219.0 * step, 224.0 * step, 224.0 * step], dtype=np.float64)
    offset = np.array([0.0 if full else 16.0 * step, 128.0 * step, 128.0 * step])
    planes = pixel.num_colour_planes
    return ColourModel(
        (unit * scale[:, None])[:planes],
        offset[:planes],
        0 if full else step,
        top if full else top - step,
        _SWSCALE[coefficients],
        full,
        _hdr_curve(tags),
    )
