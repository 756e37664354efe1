"""Compositing of a rendered box into the planes of a frame, in the pixel format of the footage. Only samples under the mask change,
and samples where the footage itself is warped.

The mask is snapped to the chroma grid: a cell (the luma samples that share a chroma sample) belongs to the mask if any of its
samples belongs to the mask. Inside,

    sample' = round(sample + alpha * (rendered - sample))

The footage itself may be warped first (jaw.py): sample' is then mixed with what the footage has at sample + shift.

`rendered` is the box, converted to Y'CbCr by the frame's own matrix and range in float32 and resampled at the site of each sample
(chroma at chroma sites). `alpha` is the mask at the same site. Outside the mask, planes are copied bit by bit. The affine map
contains the coded rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.media.pixels import ColourModel, PixelFormat
from gateway.media.types import Plane
from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import ContractBrokenError

_SHARP_FROM: Final = 0.6
"""Scale below which a picture is smoothed before resampling, against aliasing."""
_LEAST_ALPHA: Final = 1.0 / 512
"""Smallest weight. Smaller weights change nothing in 8 bits; they are set to 0 so that the support of the mask is sharp."""


def picture_at(picture: Float32, mapping: Float64, shape: tuple[int, ...]) -> Float32:
    """Return a picture at the samples of a window of a plane, by cubic interpolation.

    Linear interpolation takes a fifth to a third of the energy of the finest structures (docs/decisions/0010-native-detail.md).

    Args:
        picture: float32 [rows, columns]. Beyond its border the edge pixels are repeated.
        mapping: float64 [2, 3], pixels of the picture -> samples of the window.
        shape: rows and columns of the window.
    """
    scale = float(np.sqrt(abs(np.linalg.det(mapping[:, :2]))))
    if scale < _SHARP_FROM:
        # Variance of a box filter as wide as one sample of the plane, minus the variance of a box filter of one box pixel.
        sigma = float(np.sqrt((1.0 / scale**2 - 1.0) / 12.0))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
    return _warped(picture, mapping, shape, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def weight_at(weight: Float32, mapping: Float64, shape: tuple[int, ...]) -> Float32:
    """Return weights or offsets, which are smooth, at the samples of a window of a plane, by linear interpolation.

    Args:
        weight: float32 [rows, columns] or [rows, columns, C]. Beyond its border it is 0.
        mapping: float64 [2, 3], pixels of the weights -> samples of the window.
        shape: rows and columns of the window.
    """
    return _warped(weight, mapping, shape, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _warped(picture: Float32, mapping: Float64, shape: tuple[int, ...], method: int, border: int) -> Float32:
    size = (int(shape[1]), int(shape[0]))
    return np.asarray(cv2.warpAffine(picture, mapping, size, flags=method, borderMode=border, borderValue=0.0), np.float32)


@dataclass(frozen=True, slots=True)
class Composite:
    """Planes of the dubbed frame.

    Attributes:
        area_px: number of luma samples that may differ from the footage: those of the cells under the mask.
    """

    planes: tuple[Plane, ...] = field(repr=False)
    area_px: int


def composite(
    planes: tuple[Plane, ...],
    pixel: PixelFormat,
    colour: ColourModel,
    coded_from_box: Float64,
    box: npt.NDArray[np.uint8] | Float32,
    mask: Float32,
    *,
    shift: Float32 | None = None,
    light: Float32 | None = None,
    into: tuple[Plane, ...] | None = None,
) -> Composite:
    """Return the planes of a frame with a rendered box blended in.

    Args:
        planes: planes of the frame (DecodedFrame.planes).
        pixel: pixel format of the planes.
        colour: colour model of the stream.
        coded_from_box: float64 [2, 3], box pixels -> coded luma samples (pixel centres at integers).
        box: RGB [rows, columns, 3], uint8, or float32 in 0 to 255.
        mask: float32 [rows, columns] in [0, 1]; 0 where the box must not show.
        shift: float32 [rows, columns, 2], box pixels: from each point of the box to the point of the footage that is to be seen
            there, before the box is blended in; 0 where the footage rests. None: the footage rests everywhere.
        light: float32 [rows, columns], added to the box in levels of 255, without change of its colour; None: nothing.
        into: copy of the planes, which is changed and returned; None: a new copy.

    Raises:
        ContractBrokenError: shapes that do not match, or values that are not finite.
    """
    _check(coded_from_box, box, mask, shift, light)
    result = tuple(plane.copy() for plane in planes) if into is None else into
    step = pixel.chroma_step if pixel.kind == "yuv" else (1, 1)
    cells_shape = pixel.plane_shape(1, planes[0].shape[1], planes[0].shape[0]) if pixel.kind == "yuv" else planes[0].shape
    support = mask if shift is None else np.maximum(mask, _length(shift))
    window = _window(coded_from_box, support, step, (int(cells_shape[0]), int(cells_shape[1])))
    if window is None:
        return Composite(result, 0)
    x, y, columns, rows = window
    samples = _samples(box, colour, light)
    luma_map = _shifted(coded_from_box, x * step[0], y * step[1])
    chroma_map = _shifted(_chroma_map(coded_from_box, step), x, y)
    luma_shape = (rows * step[1], columns * step[0])
    alpha = weight_at(mask.astype(np.float32), luma_map, luma_shape)
    alpha[alpha < _LEAST_ALPHA] = 0.0
    # The frame may end inside its last row or column of cells, so the weights are cut there.
    top, left = y * step[1], x * step[0]
    alpha = alpha[: planes[0].shape[0] - top, : planes[0].shape[1] - left]
    offsets = None if shift is None else weight_at(shift, luma_map, luma_shape)[: alpha.shape[0], : alpha.shape[1]]
    cells = _any_of_cells(alpha if offsets is None else alpha + _length(offsets), step, (rows, columns))
    chroma_alpha, chroma_offsets = alpha, offsets
    if step != (1, 1):
        chroma_alpha = weight_at(mask.astype(np.float32), chroma_map, (rows, columns))
        chroma_alpha[(chroma_alpha < _LEAST_ALPHA) | ~cells] = 0.0
        if shift is not None:
            chroma_offsets = weight_at(shift, chroma_map, (rows, columns))
            chroma_offsets[~cells] = 0.0
    for number in range(pixel.num_colour_planes):
        subsampled = number > 0 and step != (1, 1)
        weight, mapping = (chroma_alpha, chroma_map) if subsampled else (alpha, luma_map)
        rendered = picture_at(samples[number], mapping, weight.shape)
        plane_top, plane_left = (y, x) if subsampled else (top, left)
        target = result[number][plane_top : plane_top + weight.shape[0], plane_left : plane_left + weight.shape[1]]
        offset = chroma_offsets if subsampled else offsets
        if offset is not None:
            _move(target, planes[number], (plane_left, plane_top), cv2.transform(offset, mapping[:, :2]), colour)
        _blend_in(target, rendered, weight, colour)
    area = int(_expanded(cells, step)[: alpha.shape[0], : alpha.shape[1]].sum())
    return Composite(result, area)


def _check(coded_from_box: Float64, box: Array, mask: Float32, shift: Float32 | None, light: Float32 | None) -> None:
    if box.shape != (*mask.shape, 3) or coded_from_box.shape != (2, 3):
        raise ContractBrokenError(f"box {box.shape}, mask {mask.shape} and affine {coded_from_box.shape} do not match")
    if shift is not None and shift.shape != (*mask.shape, 2):
        raise ContractBrokenError(f"shift {shift.shape} and mask {mask.shape} do not match")
    if light is not None and light.shape != mask.shape:
        raise ContractBrokenError(f"light {light.shape} and mask {mask.shape} do not match")
    arrays = [array for array in (coded_from_box, box, mask, shift, light) if array is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ContractBrokenError("box, mask, affine, shift or light hold values that are not finite")


def _move(target: Plane, footage: Plane, corner: tuple[int, int], offset: Array, colour: ColourModel) -> None:
    """Replace samples by what the footage has at sample + offset, clipped to the legal range, where the offset is not 0.

    Args:
        target: the part of a plane that is written.
        footage: the whole plane of the footage.
        corner: left column and top row of the part.
        offset: float32 [rows, columns, 2], samples of this plane.
        colour: colour model of the stream.
    """
    rows, columns = target.shape
    xs = np.arange(corner[0], corner[0] + columns, dtype=np.float32)
    ys = np.arange(corner[1], corner[1] + rows, dtype=np.float32)[:, None]
    filmed = cv2.remap(footage, offset[..., 0] + xs, offset[..., 1] + ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    legal = np.clip(filmed, colour.low, colour.high).astype(target.dtype)
    np.copyto(target, legal, where=_length(offset) > 0)


def _length(shift: Array) -> Float32:
    """Return the larger of the two absolute coordinates, float32 [rows, columns]."""
    # NumPy needs 30 times as long to reduce an axis of two.
    return np.asarray(np.maximum(np.abs(shift[..., 0]), np.abs(shift[..., 1])), np.float32)


def _samples(box: npt.NDArray[np.uint8] | Float32, colour: ColourModel, light: Float32 | None) -> list[Float32]:
    """Return the box, with light added, in digital samples, one float32 array per plane."""
    rgb = box.astype(np.float32)
    if colour.hdr is not None:
        # Light has the same strength for the eye in HDR footage.
        rgb = colour.hdr.coded(rgb if light is None else rgb + light[..., None])
        light = None
    matrix = np.column_stack([colour.matrix / 255.0, colour.offset])
    turned = cv2.transform(rgb, matrix).reshape(*box.shape[:2], -1)
    planes = [np.asarray(plane, np.float32) for plane in cv2.split(turned)]
    if light is not None:
        # Grey light changes the luma, or all of red, green and blue. It has no chroma.
        for plane, grey in zip(planes, colour.matrix.sum(1) / 255.0, strict=True):
            if not np.isclose(grey, 0.0):
                cv2.scaleAdd(light, float(grey), plane, dst=plane)
    return planes


def _blend_in(target: Plane, rendered: Float32, alpha: Float32, colour: ColourModel) -> None:
    """Replace samples by sample + alpha (rendered - sample), rounded, where alpha is above 0.

    The rendered samples are clipped to the legal range; the samples of the footage are not.
    """
    footage = target.astype(np.float32)
    mixed = footage + alpha * (np.clip(rendered, colour.low, colour.high) - footage)
    np.copyto(target, np.rint(mixed).astype(target.dtype), where=alpha > 0)


def _window(
    coded_from_box: Float64, mask: Float32, step: tuple[int, int], cells_shape: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return the cells of the frame that the support of the mask may reach: left, top, columns, rows; None: there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    # Linear interpolation reaches one box pixel beyond the support.
    xs, ys = (columns[0] - 1, columns[-1] + 1), (rows[0] - 1, rows[-1] + 1)
    corners = np.array([[x, y, 1.0] for x in xs for y in ys]) @ coded_from_box.T
    low = np.floor(corners.min(0) / step).astype(int)
    high = np.ceil((corners.max(0) + 1) / step).astype(int)
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), cells_shape[1]), min(int(high[1]), cells_shape[0])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _chroma_map(coded_from_box: Float64, step: tuple[int, int]) -> Float64:
    """Return the affine map from box pixels to chroma samples.

    A chroma sample is at the left luma sample of its cell, half-way down the cell (H.273 type 0).
    """
    chroma = coded_from_box.copy()
    chroma[0] /= step[0]
    chroma[1, 2] -= (step[1] - 1) / 2
    chroma[1] /= step[1]
    return chroma


def _shifted(affine: Float64, x: int, y: int) -> Float64:
    moved = affine.copy()
    moved[:, 2] -= (x, y)
    return moved


def _any_of_cells(alpha: Float32, step: tuple[int, int], cells_shape: tuple[int, int]) -> Bool:
    if step == (1, 1):
        return np.asarray(alpha > 0, np.bool_)
    support, cells = alpha > 0, np.zeros(cells_shape, np.bool_)
    for row, column in np.ndindex(step[1], step[0]):
        samples = support[row :: step[1], column :: step[0]]
        cells[: samples.shape[0], : samples.shape[1]] |= samples
    return cells


def _expanded(cells: Bool, step: tuple[int, int]) -> Bool:
    return np.asarray(np.repeat(np.repeat(cells, step[1], 0), step[0], 1), np.bool_)
