"""Pixels of a render box that may move and change: the person's face and bare neck. Clothing, hair and background keep theirs.

The colours of a face in one shot are a histogram (Jones and Rehg 2002, statistical colour models for skin) of the pixels inside
the filmed jaw without the lips, so a beard belongs to the face. Its axes are lightness and two logarithms of ratios of channels,
because light changes the ratios little. The neck lies in the shadow of the chin: the histogram also counts each colour darker,
c -> k c - o. The offset o makes dark skin more saturated, as the curve of a camera does, and tells shadows from grey cloth.

A pixel of a frame may move if its surroundings have such colours and hang together with the face, or if the pixel lies inside the
filmed jaw. Islands inside the skin (a fold, a necklace) move with the skin, and so does cloth with exactly the colours of the
face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.compositing.face_parts import fill_lips, inside_jaw
from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.face.landmarks import LIPS_OUTER

_LEVELS: Final = 64
"""Levels of red, green and blue in the table of a shot."""
_BINS: Final = 32
"""Bins of lightness and of both ratios."""
_DARK: Final = 12.0
"""Added to the channels before ratios are taken, 8-bit levels: the noise of dark pixels must not spread over all ratios."""
_LIGHTNESS: Final = (3.55, 8.1)
_RED_GREEN: Final = (-0.45, 0.95)
_BLUE_GREEN: Final = (-1.0, 0.5)
"""Ranges of the axes: log2 of the mean of the channels, ln red / green, ln blue / green."""
_SHADES: Final = (
    (1.0, 0.0, 1.0), (0.8, 0.0, 0.3), (0.62, 0.0, 0.2), (0.8, 14.0, 0.2), (0.62, 14.0, 0.15), (0.62, 28.0, 0.15), (0.55, 36.0, 0.1),
    (0.5, 20.0, 0.1), (0.5, 10.0, 0.1),
)  # fmt: skip
"""k, o (8-bit levels) and weight of the shades of each colour."""
_SIGMAS: Final = (1.2, 0.8, 0.8)
"""Blur of the histogram, bins."""
_RARE: Final = 1e-4
"""Share of the histogram in a bin from which on a colour is one of the face."""
_LEAST, _MOST = -3.0, 5.0
"""Range of ln(share / _RARE) in the table."""
_STEPS: Final = 255.0 / (_MOST - _LEAST)
_FACE_FROM: Final = round(-_LEAST * _STEPS)
_NEAR: Final = (5, 5)
"""Surroundings of a pixel, box pixels."""
_SPECKS: Final = np.ones((5, 5), np.uint8)
_GAPS: Final = np.ones((9, 9), np.uint8)
_INSIDE_PX: Final = 3
_LIPS_PX: Final = 4
_TOP: Final = 40
"""Row of the box above which no colours are learned: the nose."""
_THINNED: Final = 2
LEARNED_FRAMES: Final = 12
"""Frames of a shot, evenly spread, that its colours are learned from."""


def evenly_spread(frames: Int64, most: int) -> Int64:
    """Return at most `most` of some frames, int64 [N], at even distances, the first and the last among them."""
    if not len(frames):
        return frames
    chosen: Int64 = frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class FaceColours:
    """Colours of one face in one shot.

    Attributes:
        table: uint8 [64, 64, 64], for red, green and blue in 64 levels: how much a colour is one of the face.
    """

    table: UInt8

    def movable(self, box: UInt8, filmed: Float32) -> Bool:
        """Return the pixels that may move and change, bool [160, 160].

        Args:
            box: the footage's own render box, uint8 [160, 160, 3], RGB.
            filmed: float32 [59, 2], mouth-area landmarks of the footage, box pixels.
        """
        likely = cv2.blur(self._likely(box), _NEAR)
        opened = cv2.morphologyEx((likely > _FACE_FROM).view(np.uint8), cv2.MORPH_OPEN, _SPECKS)
        closed = np.asarray(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, _GAPS), np.uint8)
        return _around(closed | inside_jaw(filmed), filmed[: len(LIPS_OUTER)].mean(axis=0))

    def shades(self, picture: UInt8) -> Bool:
        """Return which pixels of a picture, uint8 RGB [H, W, 3], have colours of the face, in light or shadow, bool [H, W]."""
        return np.asarray(self._likely(picture) > _FACE_FROM, np.bool_)

    def _likely(self, picture: UInt8) -> UInt8:
        level = (picture >> 2).astype(np.int32)
        indices = (level[..., 0] << 12) | (level[..., 1] << 6) | level[..., 2]
        # NumPy takes elements twice as fast as it indexes with an array.
        return self.table.reshape(-1).take(indices)


def learn_colours(boxes: Sequence[UInt8], filmed: Sequence[Float32], covered: Sequence[Bool | None] | None = None) -> FaceColours:
    """Return the colours of a face.

    Args:
        boxes: render boxes of some frames of one shot, uint8 [160, 160, 3] each, RGB.
        filmed: float32 [59, 2] each, mouth-area landmarks of these frames, box pixels.
        covered: bool [160, 160] each, what covers the face in these frames; None: nothing does.
    """
    skin = [_skin_inside(mouth) > 0 for mouth in filmed]
    if covered is not None:
        skin = [part if cover is None else part & ~cover for part, cover in zip(skin, covered, strict=True)]
    return colours_in(boxes, skin)


def colours_in(boxes: Sequence[UInt8], parts: Sequence[Bool]) -> FaceColours:
    """Return the colours of parts of render boxes: uint8 [160, 160, 3] each, RGB, and bool [160, 160] each."""
    bins, counts = _bins(), np.zeros(_BINS**3)
    for box, part in zip(boxes, parts, strict=True):
        colours = box[::_THINNED, ::_THINNED][part[::_THINNED, ::_THINNED]].astype(np.float32)
        for factor, offset, weight in _SHADES:
            shade = colours * np.float32(factor) - np.float32(offset)
            level = (shade[shade.min(axis=1) >= 0.0] / (256 // _LEVELS)).astype(np.int32)
            shade_bins = bins[(level[:, 0] * _LEVELS + level[:, 1]) * _LEVELS + level[:, 2]]
            counts += weight * np.bincount(shade_bins, minlength=_BINS**3)
    share = _blurred(counts / max(counts.sum(), 1.0))
    likely = np.clip(np.log(share / _RARE + 1e-9), _LEAST, _MOST)
    table = np.rint((likely - _LEAST) * _STEPS).astype(np.uint8)[bins]
    return FaceColours(table.reshape(_LEVELS, _LEVELS, _LEVELS))


def _skin_inside(mouth: Float32) -> UInt8:
    """Return 1 well inside the jaw, below the nose and beside the lips, uint8 [160, 160]."""
    skin = np.asarray(cv2.erode(inside_jaw(mouth), np.ones((2 * _INSIDE_PX + 1,) * 2, np.uint8)), np.uint8)
    fill_lips(skin, mouth, 0, margin_px=_LIPS_PX)
    skin[:_TOP] = 0
    return skin


def _around(face: UInt8, mouth: Float32) -> Bool:
    """Return the part of `face` that holds the mouth (x, y), without holes, bool [160, 160]."""
    contours, _ = cv2.findContours(face, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = np.zeros_like(face)
    point = (float(mouth[0]), float(mouth[1]))
    for contour in contours:
        if cv2.pointPolygonTest(contour, point, False) >= 0:
            cv2.drawContours(whole, [contour], -1, (1,), cv2.FILLED)
    return whole.astype(np.bool_)


@cache
def _bins() -> npt.NDArray[np.int32]:
    """Return the bin of each colour of the table, int32 [64 ** 3]."""
    level = (np.arange(_LEVELS) + 0.5) * (256 / _LEVELS) + _DARK
    red, green, blue = np.meshgrid(level, level, level, indexing="ij")
    axes = (np.log2((red + green + blue) / 3), np.log(red / green), np.log(blue / green))
    bins = np.zeros(red.shape, np.int32)
    for value, (low, high) in zip(axes, (_LIGHTNESS, _RED_GREEN, _BLUE_GREEN), strict=True):
        bins = bins * _BINS + np.clip((value - low) / (high - low) * _BINS, 0, _BINS - 1).astype(np.int32)
    return bins.reshape(-1)


def _blurred(share: Float64) -> Float64:
    """Return a histogram, float64 [32 ** 3], blurred by a Gaussian of _SIGMAS."""
    blurred: Float64 = share.reshape(_BINS, _BINS, _BINS)
    for axis, sigma in enumerate(_SIGMAS):
        rows = np.ascontiguousarray(np.moveaxis(blurred, axis, 0)).reshape(_BINS, -1)
        blurred_rows = cv2.GaussianBlur(rows, (1, 9), sigmaX=0, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)
        blurred = np.moveaxis(np.asarray(blurred_rows, np.float64).reshape(_BINS, _BINS, _BINS), 0, axis)
    return np.ascontiguousarray(blurred).reshape(-1)
