"""One texture of a mouth from the frames that retrieval found: splines, alignment, blend, and the inside of the mouth.

Splines move each frame to the target landmarks (Song et al., Sec. III-B.2). Landmarks err by a pixel or two. So the lips of several
frames lie on the same landmarks and on different pixels, and the mean of the frames shows half-open lips as nearly shut. Optical
flow between the warped frames finds these differences, and each frame is moved to the weighted mean of all positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.drawing import lip_pictures
from services.common.face.landmarks import NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import SMOOTHING, MouthBank, Retrieved, share_between
from services.common.face.mouth_inside import InsideMap, MouthView, inside_map, shaded
from services.common.face.thin_plate_spline import ThinPlateSpline, dense_map, fit_spline, warp

_INSIDE_MARGIN: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
_INSIDE_SOFT_PX: Final = 1.0
"""Softness of the border of the inside, the standard deviation of a Gaussian, box pixels."""
_TEETH_MARGIN: Final = np.ones((3, 3), np.uint8)
_LESS_RED: Final = (4.0, 10.0)
_LIGHTER: Final = (2.0, 8.0)
"""Lab differences from the lips (CIE 1976) from which on a pixel may be a tooth, and from which on it is one."""
_TEETH_REACH_PX: Final = (5.0, 7.0)
"""Distances from the tracked inner lips up to which teeth are searched in full, and from which on they are not."""
_FEWEST_LIP_PX: Final = 20
_PARTED: Final = (0.3, 0.8)
"""Openings, as shares of the source's, up to which lips cover the teeth that the source shows beyond its inner lips, and from which
on they uncover them.
"""
_SMALLEST_OPENING_PX: Final = 1.0
_HALF: Final = 127
_DETAIL_SIGMA: Final = 1.5
_DETAIL_TEXTURES: Final = 2
_DETAIL_SHARPNESS: Final = 3.0
_AROUND_PX: Final = 12
"""Distance from the lips up to which frames are aligned, box pixels. The alignment fades to nothing in this distance."""
_STEP: Final = 2
"""Box pixels of one pixel of the pictures in which flow is searched."""
_FURTHEST_PX: Final = 3.0
"""Longest move of the alignment, box pixels: further away, flow finds another structure."""
_CALM_SIGMA: Final = 1.0
"""Smoothing of the flow, the standard deviation of a Gaussian, pixels of the flow."""
_SMALLEST_PX: Final = 24
"""Smallest side of the aligned part, box pixels: a mouth that a bad track puts outside the box is not aligned."""
_NO_FLOW: Final = np.empty(0, np.float32)


def fit_retrieved(bank: MouthBank, retrieved: Retrieved, target: Float32, residual: Float32 | None = None) -> ThinPlateSpline:
    """Return the splines of the retrieved frames side by side, in the order of `Retrieved.sources` (D = 2 a frame).

    Args:
        retrieved: K windows.
        target: float32 [86, 2], from `target_points`, box pixels.
        residual: float32 [R, 86, 2], R <= K, correction of the source points of the best R frames by the temporal-warp network;
            None: no correction. The frame of the inside gets none.
    """
    sources = bank.control_points[retrieved.sources]
    if residual is not None:
        sources[: len(residual)] += residual
    return fit_spline(target, sources.transpose(1, 0, 2).reshape(len(target), -1), SMOOTHING)


class WarpedMouth(NamedTuple):
    """Texture of one frame.

    Attributes:
        texture: uint8 [160, 160, 3], RGB.
        inside_map: where the inside comes from in the box of the frame that shows the inside.
    """

    texture: npt.NDArray[np.uint8]
    inside_map: InsideMap


def warp_retrieved(bank: MouthBank, retrieved: Retrieved, grids: Float32, target: MouthView) -> WarpedMouth:
    """Return the retrieved textures, warped and blended, with the inside of the mouth from one texture.

    Args:
        retrieved: K windows.
        grids: float32 [GRID_SIZE, GRID_SIZE, 2 a frame], coarse grids of the splines from `fit_retrieved`.
        target: the mouth to show.
    """
    maps = [dense_map(grids[..., 2 * index : 2 * index + 2]) for index in range(len(retrieved.sources))]
    boxes = bank.boxes[retrieved.rows[:, -1]]
    moved = aligned(maps[: len(boxes)], boxes, retrieved.weights, target.landmarks)
    # The finest detail of the blend comes from the best textures alone, so the others need no costly interpolation.
    pictures = [
        warp(box, backward, cubic=rank < _DETAIL_TEXTURES) for rank, (box, backward) in enumerate(zip(boxes, moved, strict=True))
    ]
    blended = blend(np.stack(pictures), retrieved.weights)
    source, picture = bank.view(retrieved.inside), bank.boxes[retrieved.inside]
    inner_map = inside_map(maps[-1], picture, source, target)
    weight = inside_weight(target)
    parted = float(mouth_opening(target.mouth)) / max(float(mouth_opening(source.mouth)), _SMALLEST_OPENING_PX)
    uncovered = share_between(parted, _PARTED)
    if uncovered:
        teeth = warp(teeth_weight(picture, source.landmarks), inner_map.backward).astype(np.float32) / np.float32(255.0)
        weight = np.maximum(weight, teeth * uncovered)
    left, top, width, height = cv2.boundingRect((weight > 0).view(np.uint8))
    if width:
        part = slice(top, top + height), slice(left, left + width)
        inside = shaded(warp(picture, inner_map.backward[part]).astype(np.float32), inner_map.gap[part], bank.dark)
        blended[part] = np.rint(blended[part] + weight[part][..., None] * (inside - blended[part]))
    return WarpedMouth(blended, inner_map)


def aligned(maps: Sequence[Float32], boxes: npt.NDArray[np.uint8], weights: Float32, landmarks: Float32) -> list[Float32]:
    """Return the maps of K frames, changed so that all frames show the lips at the same pixels: the weighted mean of positions.

    Args:
        maps: float32 [160, 160, 2] for each frame, backward maps of the splines, the best frame first. One map stays as it is.
        boxes: uint8 [K, 160, 160, 3], RGB, the frames.
        weights: float32 [K], sum 1.
        landmarks: float32 [59, 2], target landmarks, box pixels.
    """
    lips = landmarks[:NUM_LIPS]
    left, top = np.clip(np.floor(lips.min(axis=0)).astype(int) - _AROUND_PX, 0, BOX_SIZE)
    right, bottom = np.clip(np.ceil(lips.max(axis=0)).astype(int) + _AROUND_PX, 0, BOX_SIZE)
    if len(maps) == 1 or min(right - left, bottom - top) < _SMALLEST_PX:
        return list(maps)
    parts = [np.ascontiguousarray(backward[top:bottom:_STEP, left:right:_STEP]) for backward in maps]
    pictures = [_seen(cv2.cvtColor(box, cv2.COLOR_RGB2GRAY), part) for box, part in zip(boxes, parts, strict=True)]
    flows = np.stack([np.zeros_like(parts[0]), *(_flow(pictures[0], picture) for picture in pictures[1:])])
    height, width = pictures[0].shape
    down, across = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    border = np.minimum(np.minimum(down, down[::-1])[:, None], np.minimum(across, across[::-1]))
    fade = np.minimum(border * np.float32(_STEP / _AROUND_PX), 1)[..., None]
    moves = fade * (flows - np.tensordot(weights, flows, 1))
    grid = cv2.merge([np.broadcast_to(across, border.shape).copy(), np.broadcast_to(down[:, None], border.shape).copy()])
    changed = []
    for backward, part, move in zip(maps, parts, moves, strict=True):
        change = _seen(part, grid + move) - part
        moved = backward.copy()
        moved[top:bottom, left:right] += cv2.resize(change, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_LINEAR)
        changed.append(moved)
    return changed


def _seen(picture: npt.NDArray[Any], backward: Float32) -> npt.NDArray[Any]:
    """Return a picture or a map, [H, W] or [H, W, 2], at the points of a backward map [h, w, 2]: bilinear, [h, w] or [h, w, 2]."""
    return cv2.remap(picture, backward[..., 0], backward[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _flow(first: UInt8, second: UInt8) -> Float32:
    """Return the smoothed flow between two pictures [H, W], float32 [H, W, 2]: first(p) is second(p + flow(p)).

    Kroeger, Timofte, Dai, Van Gool: Fast Optical Flow using Dense Inverse Search (ECCV 2016). Without propagation between patches,
    the number of threads does not change the flow.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(0)
    search.setUseSpatialPropagation(False)
    flow = cv2.GaussianBlur(search.calc(first, second, _NO_FLOW), (0, 0), _CALM_SIGMA)
    length = np.linalg.norm(flow, axis=-1, keepdims=True)
    return np.asarray(flow * np.minimum(_FURTHEST_PX / _STEP / np.maximum(length, 1e-6), 1), np.float32)


def inside_weight(target: MouthView) -> Float32:
    """Return the weight of the texture that shows the inside of the mouth, float32 [160, 160], 0 to 1.

    The inner lips are tracked to some pixels, and teeth shine through beyond them. So the weight reaches over the inner lips.

    Args:
        target: the mouth to show.
    """
    inside = cv2.dilate(lip_pictures(target.landmarks)[..., 1], _INSIDE_MARGIN).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(inside / np.float32(255.0), (0, 0), _INSIDE_SOFT_PX), np.float32)


def teeth_weight(picture: UInt8, landmarks: Float32) -> UInt8:
    """Return where a picture shows teeth between the outer lips, uint8 [160, 160], 0 to 255, with soft borders.

    The tracked inner lips often lie on the teeth. The teeth beyond them are found by their colour: lighter and less red than the
    lips of the same picture.

    Args:
        picture: uint8 [160, 160, 3], RGB, render box.
        landmarks: float32 [L, 2], landmarks in the picture, the lips first, box pixels.
    """
    weight = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    outer, inner = (np.ascontiguousarray(part) for part in np.moveaxis(lip_pictures(landmarks), -1, 0))
    x, y, width, height = cv2.boundingRect(outer)
    box = slice(y, y + height), slice(x, x + width)
    outer, inner = outer[box], inner[box]
    if not inner.any():
        return weight
    away = np.asarray(cv2.distanceTransform((inner <= _HALF).view(np.uint8), cv2.DIST_L2, 5), np.float32)
    mouth = cv2.erode(outer, _TEETH_MARGIN, borderType=cv2.BORDER_CONSTANT, borderValue=0) > _HALF
    lips = mouth & (away > _TEETH_MARGIN.shape[0])
    if lips.sum() < _FEWEST_LIP_PX:
        return weight
    lab = cv2.cvtColor(picture[box].astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)
    lightness, red = np.median(lab[lips][:, :2], axis=0)
    share = share_between(red - lab[..., 1], _LESS_RED) * share_between(lab[..., 0] - lightness, _LIGHTER)
    share = share * (1.0 - share_between(away, _TEETH_REACH_PX)) * mouth
    grown = cv2.dilate(np.asarray(np.rint(share * 255.0), np.uint8), _TEETH_MARGIN)
    weight[box] = grown
    return np.asarray(cv2.GaussianBlur(weight, (0, 0), _INSIDE_SOFT_PX), np.uint8)


def blend(pictures: npt.NDArray[np.uint8], weights: Float32) -> npt.NDArray[np.uint8]:
    """Return the weighted mean of pictures. Fine detail comes from the two best pictures with sharper weights, so that teeth stay
    sharp.

    Args:
        pictures: uint8 [K, 160, 160, 3], the best one first.
        weights: float32 [K], sum 1, never increasing.
    """
    if len(pictures) == 1:
        return np.asarray(pictures[0], dtype=np.uint8)
    mean = np.tensordot(weights, pictures.astype(np.float32), 1)
    sharper = weights[:_DETAIL_TEXTURES] ** _DETAIL_SHARPNESS
    sharp = np.tensordot(sharper / sharper.sum(), pictures[:_DETAIL_TEXTURES].astype(np.float32), 1)
    detail = sharp - mean
    mixed = mean + detail - cv2.GaussianBlur(detail, (0, 0), _DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), dtype=np.uint8)
