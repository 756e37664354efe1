"""Detail of the mouth at the footage's own resolution, from the best retrieved frame of a bank.

A render box holds structures down to two box pixels, and networks draw the finest of them softly. Skin, stubble, lips and teeth
have finer ones. The luma of the best retrieved frame, warped to the target landmarks at the footage's own resolution, has all of
them. The detail of a luma picture is what is finer than DETAIL_SIGMA_PX. It has two bands (after Burt and Adelson 1983):

    detail = W - G2 W        middle = G1 detail        fine = detail - middle

W is the luma, G1 and G2 are Gaussians of FINE_SIGMA_PX and DETAIL_SIGMA_PX, computed in box pixels, where a smooth picture needs
no more. gateway/compositing/detail.py puts the fine band of the bank's frame into the rendered box, and strengthens the box's own
middle band to match that of the frame. One frame gives the detail: a mean of several frames would lose it.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import LIPS_OUTER, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.common.face.mouth_inside import InsideMap
from services.common.face.thin_plate_spline import warp

DETAIL_SIGMA_PX: Final = 1.6
"""Standard deviation of the Gaussian that divides detail from shape and shading, box pixels."""
FINE_SIGMA_PX: Final = 1.0
"""Standard deviation of the Gaussian that divides the fine band of a detail from its middle band, box pixels."""
LUMA_WEIGHTS: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a luma (BT.601), for pictures in floats."""
NO_DETAIL: Final = 128
"""Value of a detail picture that changes nothing."""
_LIPS_FEATHER_PX: Final = 1.0
_FIT_SIGMA_PX: Final = 3.0
"""Standard deviation of the Gaussian over which box and detail are compared, box pixels."""
_FULL_FIT: Final = 0.5
"""Correlation from which the detail between the lips has its whole strength (docs/decisions/0010-native-detail.md)."""
_EDGE_SIGMA_PX: Final = 2.0
"""Standard deviation of the Gaussian over which the strength of the middle band is measured, box pixels."""
_EDGE_FROM: Final = 1.5
_EDGE_FULL: Final = 3.0
"""Strengths of the frame's middle band, grey levels: from _EDGE_FROM on a structure counts as an edge, from _EDGE_FULL on in full.
Pores and stubble are weaker; borders of shadows, wrinkles and teeth are stronger."""
_LEAST_UNFIT: Final = 0.02
"""Weight below which an edge is left as it is: the change is about a grey level or less."""
_ENLARGED_MARGIN_PX: Final = 3
"""Margin around the changed rectangle, box pixels: a bicubic enlargement reads two pixels to each side, and one is spare."""
_HIDDEN_INSIDE: Final = 0.5
_WHOLE_INSIDE: Final = 0.8
"""Shares of the frame's opening at which the target opening hides the detail of the inside, and at which all detail stays."""
_SMALLEST_OPENING_PX: Final = 1.0
_INSIDE_MARGIN: Final = np.ones((7, 7), np.uint8)
"""The inner lips are tracked to 3 box pixels, and teeth shine through beyond them."""
_SUBPIXEL_BITS: Final = 4
_SUBPIXELS: Final = 1 << _SUBPIXEL_BITS
_NO_SECOND_MAP: Final = np.empty(0, np.float32)


def detail_of(luma: Float32, scale: int) -> Float32:
    """Return the structures of a luma picture that are finer than DETAIL_SIGMA_PX, float32 [160 scale, 160 scale].

    Args:
        luma: float32 [160 scale, 160 scale].
        scale: native pixels per box pixel.
    """
    return np.asarray(luma - at_scale(coarse_of(on_box_grid(luma)), scale), np.float32)


def coarse_of(small: Float32) -> Float32:
    """Return what of a picture in box pixels, float32 [160, 160], is no detail, float32 [160, 160]."""
    return np.asarray(cv2.GaussianBlur(small, (0, 0), DETAIL_SIGMA_PX, borderType=cv2.BORDER_REPLICATE), np.float32)


def middle_of(detail: Float32) -> Float32:
    """Return the middle band of a detail in box pixels, float32 [160, 160], without its fine band, float32 [160, 160]."""
    return np.asarray(cv2.GaussianBlur(detail, (0, 0), FINE_SIGMA_PX, borderType=cv2.BORDER_REPLICATE), np.float32)


def at_scale(small: Float32, scale: int) -> Float32:
    """Return a smooth picture of the box, float32 [160, 160], at `scale` pixels per box pixel, float32 [160 scale, 160 scale]."""
    side = scale * BOX_SIZE
    return small if scale == 1 else np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def on_box_grid(picture: Float32) -> Float32:
    """Return a picture, float32 [160 S, 160 S], in box pixels, float32 [160, 160]."""
    if len(picture) == BOX_SIZE:
        return picture
    return np.asarray(cv2.resize(picture, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA), np.float32)


def grey(rgb: UInt8) -> UInt8:
    """Return the luma (BT.601) of an RGB picture, uint8 [H, W, 3]: uint8 [H, W]."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def luma_of(rgb: UInt8) -> Float32:
    """Return the luma (BT.601) of an RGB picture, uint8 [H, W, 3]: float32 [H, W], 0 to 255."""
    return grey(rgb).astype(np.float32)


def enlarged(box: UInt8, scale: int) -> UInt8:
    """Return a render box, uint8 [160, 160, 3], at `scale` pixels per box pixel, uint8 [160 scale, 160 scale, 3]."""
    side = scale * BOX_SIZE
    return box if scale == 1 else np.asarray(cv2.resize(box, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def warped_detail(bank: MouthBank, row: int, inside_map: InsideMap, scale: int) -> UInt8:
    """Return the detail of a bank frame, warped: uint8 [160 scale, 160 scale], 128 where there is no detail, as in a gap.

    The detail is as strong as in the frame's box, whose exposure is that of the bank.

    Args:
        bank: the bank. Without native pictures, or with pictures of a smaller scale, the detail is only as fine as these.
        row: the frame.
        inside_map: where each box pixel lies in the frame's own box.
        scale: requested pixels per box pixel, 1 to 4.

    Raises:
        InvalidRequestError: the bank's native picture is damaged.
    """
    side, box = scale * BOX_SIZE, grey(bank.boxes[row])
    source, source_scale = (box, 1) if bank.native is None else (bank.native.luma(row), bank.native.scale)
    # A bank gives the boxes of all its shots one exposure. The native pictures keep that of their shot.
    exposure = np.float32(cv2.mean(box)[0] / max(cv2.mean(source)[0], 1.0))
    if source_scale > scale:
        source, source_scale = np.asarray(cv2.resize(source, (side, side), interpolation=cv2.INTER_AREA), np.uint8), scale
    backward, gap = inside_map
    if scale > 1:
        backward, gap = (
            np.asarray(cv2.resize(each, (side, side), interpolation=cv2.INTER_LINEAR), np.float32) for each in (backward, gap)
        )
    if source_scale > 1:
        backward = backward * np.float32(source_scale) + np.float32(0.5 * (source_scale - 1))
    moved = cv2.remap(source, backward, _NO_SECOND_MAP, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return _stored(exposure * (np.float32(1.0) - gap) * detail_of(moved.astype(np.float32), scale))


def without_hidden_inside(detail: UInt8, source: Float32, target: Float32, backward: Float32) -> UInt8:
    """Return detail without that of the inside of the frame's mouth if the target mouth is less open: no teeth behind shut lips.

    A spline squeezes teeth, and does not bring lips together that are far apart. A bank of many frames has a frame whose lips are
    near the target lips; a bank of one frame has not.

    Args:
        detail: uint8 [160 S, 160 S], from `warped_detail`.
        source: float32 [59, 2], mouth-area landmarks of the bank's frame, box pixels.
        target: float32 [59, 2], target mouth-area landmarks, box pixels.
        backward: float32 [160, 160, 2], for each box pixel its position in the frame's own box, box pixels.
    """
    opened = float(mouth_opening(target)) / max(float(mouth_opening(source)), _SMALLEST_OPENING_PX)
    hidden = 1.0 - float(np.clip((opened - _HIDDEN_INSIDE) / (_WHOLE_INSIDE - _HIDDEN_INSIDE), 0.0, 1.0))
    if not hidden:
        return detail
    inside = warp(np.asarray(cv2.dilate(lip_pictures(source)[..., 1], _INSIDE_MARGIN), np.uint8), backward)
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), _LIPS_FEATHER_PX, borderType=cv2.BORDER_REPLICATE)
    kept = at_scale(np.asarray(1.0 - hidden / 255.0 * soft, np.float32), len(detail) // BOX_SIZE)
    return _stored(kept * (detail.astype(np.float32) - NO_DETAIL))


def with_fitting_interior(detail: UInt8, box: UInt8, landmarks: Float32) -> UInt8:
    """Return detail that is left out between the lips where the detail does not fit a rendered box.

    A renderer that does not start from the bank's frame draws its own teeth and tongue. Outlines of the frame's teeth sharpen the
    same teeth in the box, and are scratches on a dark mouth or on a tongue. The middle bands tell the one from the other. With b
    the box's and d the detail's, and G a Gaussian of _FIT_SIGMA_PX, the local correlation is

        G(b d) / (sqrt(G(b b) G(d d)) + 1)

    The detail keeps its whole strength from a correlation of _FULL_FIT. Where the correlation is smaller, the detail passes over
    into the box's own middle band, and from 0 downwards no fine structure is left.

    Args:
        detail: uint8 [160 S, 160 S], from `warped_detail`.
        box: uint8 [160, 160, 3], RGB, rendered box.
        landmarks: float32 [59, 2], target mouth-area landmarks, box pixels.
    """
    side = len(detail)
    scale = side // BOX_SIZE
    lips = (landmarks[len(LIPS_OUTER) : NUM_LIPS] + 0.5) * scale - 0.5
    inside = np.zeros((side, side), np.float32)
    cv2.fillPoly(inside, [np.rint(lips * _SUBPIXELS).astype(np.int32)], (1.0,), lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    inside = np.asarray(cv2.GaussianBlur(inside, (0, 0), _LIPS_FEATHER_PX * scale, borderType=cv2.BORDER_REPLICATE), np.float32)
    given = detail.astype(np.float32) - NO_DETAIL
    own, frame = middle_of(detail_of(luma_of(box), 1)), middle_of(on_box_grid(given))
    unfit = inside * (1.0 - np.clip(at_scale(_correlation(own, frame), scale) / _FULL_FIT, 0.0, 1.0))
    return _stored(given + unfit * (at_scale(own, scale) - given))


def with_fitting_edges(detail: UInt8, box: UInt8) -> UInt8:
    """Return detail without the strong edges that a rendered box does not have.

    A head that turns in hard light has the borders of its shadows elsewhere in every pose. The renderer draws the shadows of the
    target frame; the border in the bank's frame would be a scratch across the skin. Where the frame's middle band is as strong as
    an edge, the detail has to fit the box as in `with_fitting_interior`. Weaker structures, such as pores, need not fit.

    Args:
        detail: uint8 [160 S, 160 S], from `warped_detail`.
        box: uint8 [160, 160, 3], RGB, rendered box.
    """
    scale = len(detail) // BOX_SIZE
    small = detail if scale == 1 else cv2.resize(detail, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA)
    frame = middle_of(np.asarray(small, np.float32) - NO_DETAIL)
    strength = np.sqrt(cv2.GaussianBlur(frame * frame, (0, 0), _EDGE_SIGMA_PX, borderType=cv2.BORDER_REPLICATE))
    edge = np.clip((strength - _EDGE_FROM) / (_EDGE_FULL - _EDGE_FROM), 0.0, 1.0)
    if not edge.any():
        return detail
    own = middle_of(detail_of(luma_of(box), 1))
    unfit = np.asarray(edge * (1.0 - np.clip(_correlation(own, frame) / _FULL_FIT, 0.0, 1.0)), np.float32)
    rows, columns = (np.flatnonzero((unfit > _LEAST_UNFIT).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return detail
    # Only the rectangle with edges is changed, with a margin for the bicubic enlargement.
    top, left = max(0, rows[0] - _ENLARGED_MARGIN_PX), max(0, columns[0] - _ENLARGED_MARGIN_PX)
    part = slice(top, rows[-1] + _ENLARGED_MARGIN_PX + 1), slice(left, columns[-1] + _ENLARGED_MARGIN_PX + 1)
    height, width = unfit[part].shape
    large = slice(scale * top, scale * (top + height)), slice(scale * left, scale * (left + width))
    weight, smooth = (
        cv2.resize(each[part], (scale * width, scale * height), interpolation=cv2.INTER_CUBIC) for each in (unfit, own)
    )
    weight = np.clip(weight, 0.0, 1.0)  # the bicubic enlargement overshoots
    given = detail[large].astype(np.float32) - NO_DETAIL
    fitting = detail.copy()
    fitting[large] = _stored(given + weight * (smooth - given))
    return fitting


def _correlation(one: Float32, other: Float32) -> Float32:
    products = cv2.merge([one * other, one * one, other * other])
    around = cv2.GaussianBlur(products, (0, 0), _FIT_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    # One grey level keeps the noise of two flat pictures from being a fit.
    return np.asarray(around[..., 0] / (np.sqrt(around[..., 1] * around[..., 2]) + np.float32(1.0)), np.float32)


def _stored(detail: Float32) -> UInt8:
    return np.asarray(np.clip(np.rint(detail + NO_DETAIL), 0, 255), np.uint8)
