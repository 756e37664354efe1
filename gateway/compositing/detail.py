"""A rendered box at the footage's own resolution: the box, enlarged, with the detail of the person's own frames.

services/common/face/mouth_detail.py says what detail and its two bands are. With W the best frame of the person, Y the box:

    result = box - fine(Y) + f fine(W) + 1.5 (g - 1) middle(Y)

The box has no fine band worth keeping, so the frame's takes its place. The middle band of the box has the right structures at the
right points, but is drawn softly. So it is kept and strengthened: g is the ratio of k times the frame's middle band under the mask
to the box's. To put the frame's middle band in its place would look the same, and be farther from the video.

An actor may have been learned from sharper or softer footage than the video that is dubbed, and the video may be out of focus or
blurred by motion. f and k are the ratios of the video's own frame to the frame of the person, band by band, on the skin alone: what
the lips and teeth of the video do must not show.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from gateway.compositing.face_parts import fill_lips
from gateway.media.pixels import ColourModel
from gateway.media.types import Plane
from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_detail import NO_DETAIL, at_scale, coarse_of, enlarged, luma_of, middle_of, on_box_grid

_MOST_RAISED: Final = 1.25
"""Largest factor of the detail of the person's frame. A video with more has noise, or another light."""
_MOST_GAIN: Final = 1.6
"""Largest factor of the box's middle band. If the box is softer than that, it shows something else than the frame."""
_STRENGTHENED: Final = 1.5
"""Parts of the box's middle band that are added for each part that is missing. The band passes .4 of its own middle, so 1.5 makes
up for about 60 % of what is missing, and costs .1 dB of PSNR. To make up for all of it would cost .2 dB."""
_LIPS_MARGIN_PX: Final = 3


def skin_under(mask: UInt8, *mouths: Float32) -> UInt8:
    """Return the mask without the lips of some mouths, uint8 [160, 160].

    Args:
        mask: uint8 [160, 160], weight of the box.
        mouths: float32 [59, 2] each, mouth-area landmarks, box pixels.
    """
    skin = mask.copy()
    for mouth in mouths:
        fill_lips(skin, mouth, 0, margin_px=_LIPS_MARGIN_PX)
    return skin


def box_with_detail(box: UInt8, detail: UInt8, mask: UInt8, skin: UInt8, own: Float32) -> UInt8:
    """Return a rendered box with detail, uint8 [160 S, 160 S, 3], RGB.

    Args:
        box: uint8 [160, 160, 3], RGB.
        detail: uint8 [160 S, 160 S], detail of a luma plus 128; S >= 1 pixels per box pixel.
        mask: uint8 [160, 160], weight of the box in the frame.
        skin: uint8 [160, 160], `skin_under` that mask.
        own: float32 [160 S, 160 S], luma of the video's own frame, 0 to 255.
    """
    scale = len(detail) // BOX_SIZE
    person = detail.astype(np.float32) - NO_DETAIL
    person_middle = middle_of(on_box_grid(person))
    video_small, box_small = on_box_grid(own), luma_of(box)
    video_coarse, box_coarse = coarse_of(video_small), coarse_of(box_small)
    video_middle, box_middle = middle_of(video_small - video_coarse), middle_of(box_small - box_coarse)
    video_smooth = video_coarse + video_middle
    fine = _raised(_thinned_fine(person, person_middle), _thinned_fine(own, video_smooth), skin)
    target = _raised(person_middle, video_middle, skin) * _strength(person_middle, mask)
    gain = min(max(_ratio(target, _strength(box_middle, mask)), 1.0), _MOST_GAIN)
    large = enlarged(box, scale)
    # One smooth picture holds all that is not the fine band of the person, and is enlarged once.
    smooth = box_coarse + np.float32(1.0 + _STRENGTHENED * (gain - 1.0)) * box_middle - np.float32(fine) * person_middle
    change = np.float32(fine) * person - luma_of(large) + at_scale(smooth, scale)
    whole = np.rint(change).astype(np.int16)
    return np.asarray(cv2.add(large, cv2.merge([whole, whole, whole]), dtype=cv2.CV_8U), np.uint8)


def luma_under_box(luma: Plane, bits: int, colour: ColourModel, coded_from_native: Float64, side: int) -> Float32:
    """Return the luma of a frame at the pixels of a box, float32 [side, side], 0 to 255.

    Args:
        luma: the frame's first plane.
        bits: bits per sample.
        colour: colour model of the stream; says where black and white are.
        coded_from_native: float64 [2, 3], pixels of the box -> coded luma samples.
        side: pixels of the box.
    """
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(luma, coded_from_native, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    white = (1 << bits) - 1 if colour.full_range else 219 << (bits - 8)
    levels = np.asarray(seen.astype(np.float32) * np.float32(255.0 / white), np.float32)
    if colour.hdr is None:
        return levels
    return colour.hdr.shown_luma(levels - np.float32(colour.offset[0] * 255.0 / white))


def _raised(person: Float32, video: Float32, skin: UInt8) -> float:
    """Return the factor that gives a band of the person's frame the strength of the video's on the skin."""
    return min(_ratio(_strength(video, skin), _strength(person, skin)), _MOST_RAISED)


def _thinned_fine(picture: Float32, smooth: Float32) -> Float32:
    """Return one pixel for each box pixel of the fine band: as strong as the whole band, and made in a fraction of the time.

    Args:
        picture: float32 [160 S, 160 S].
        smooth: float32 [160, 160], what of the picture is not fine.
    """
    scale = len(picture) // BOX_SIZE
    chosen = picture[scale // 2 :: scale, scale // 2 :: scale]
    if scale % 2:
        return np.asarray(chosen - smooth, np.float32)
    # A box pixel of an even number of pixels has none in its middle.
    off = 0.5 / scale
    there = np.array([[1.0, 0.0, off], [0.0, 1.0, off]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(smooth, there, (BOX_SIZE, BOX_SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(chosen - moved, np.float32)


def _strength(band: Float32, weight: UInt8) -> float:
    """Return the root of the weighted sum of squares of a band."""
    return float(np.sqrt((weight * band * band).sum(dtype=np.float64)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else 1.0
