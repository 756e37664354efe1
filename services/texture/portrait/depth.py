"""Depth of a still picture, and the share by which each place follows the head (face profiling, Zhu et al. 2016, Sec. 4.1).

Zhu et al. mesh the whole picture, with anchors of estimated depth around the face and at the border. Here depth and share are
smooth functions on a coarse grid: inside the face, depth is the depth of the fitted mesh; outside, depth falls back to the middle
of the skull, where the outline of the hair is. Face and hair follow the head wholly, neck and surroundings less and less, the
border not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.chassis.calls import check_still_wanted
from services.common.face.crops import HeadPose
from services.common.face.head_cameras import weak_perspective_of
from services.common.face.identity import FaceIdentity
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rasterise import Backend, rasterise

GRID_CELLS: Final = 192
"""Cells of the grid along the picture's longer side."""
_SKULL: Final = (0.0, -70.0, 85.0)
"""Middle of the skull in head space."""
_BACKWARDS_PX: Final = 55.0
"""Distance from the face's outline at which depth reaches the skull's middle, head-space pixels."""
_HAIR_PX: Final = 30.0
"""Width of the hair beyond the outline that follows the head wholly, head-space pixels; 0 below the chin."""
_REACH_PX: Final = 110.0
_NECK_PX: Final = 170.0
"""Distance beyond the hair after which no place follows the head, head-space pixels: _REACH_PX beside and above the head, _NECK_PX
below."""
MAX_SLOPE: Final = 2.3
"""Largest slope, pixels of depth per pixel. A steeper flank would fold over in a turn."""
_SMOOTH_PX: Final = 2.5
_RIDGE: Final = 0.3


@dataclass(frozen=True, eq=False)
class PortraitDepth:
    """Depth and share on a grid whose node (i, j) is pixel (j * step, i * step) of the portrait, also beyond the border.

    Attributes:
        step: pixels.
        depth: float32 [h, w], frame pixels, as landmarks' z of the head pose.
        share: float32 [h, w], 0..1: share by which the node follows the head.
    """

    step: float
    depth: Float32
    share: Float32


def portrait_depth(
    size: tuple[int, int],
    landmarks: Float32,
    pose: HeadPose,
    identity: FaceIdentity,
    model: MorphableModel,
    *,
    backend: Backend = "numba",
) -> PortraitDepth:
    """Return depth and share of a portrait.

    Args:
        size: its height and width, pixels.
        landmarks: float32 [478, 3], its pixels.
        pose: of the head.
        identity: the person's shape.
        model: the morphable model of the identity.
        backend: rasteriser.

    Raises:
        BackendUnavailable: the rasteriser is not installed.
    """
    height, width = size
    step = max(1.0, max(size) / GRID_CELLS)
    rows, columns = (int(np.ceil((length - 1) / step)) + 1 for length in size)
    placed = _fitted(landmarks, pose, identity, model)
    nodes, away = placed[None, :, :2] / step, placed[None, :, 2]
    fragments = rasterise(nodes, away, model.triangles, rows, columns, perspective=False, cull="back", backend=backend)
    face = fragments.covered[0]
    if not face.any():
        return PortraitDepth(step, np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32))
    unit = pose.scale / step  # grid cells a head-space pixel
    distance, labels = cv2.distanceTransformWithLabels(
        (~face).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(labels.max()) + 1, np.float32)
    nearest[labels[face]] = fragments.depth[0][face]
    outside = distance / unit
    skull = pose.scale * (pose.rotation @ np.array(_SKULL))[2] + pose.translation[2]
    back = _ease(outside / _BACKWARDS_PX)
    depth = (1.0 - back) * nearest[labels] + back * skull
    depth = _without_cliffs(depth, MAX_SLOPE * step)
    depth = cv2.GaussianBlur(depth.astype(np.float32), (0, 0), max(_SMOOTH_PX * unit, 0.5), borderType=cv2.BORDER_REPLICATE)
    grid = np.stack(np.meshgrid(np.arange(columns) * step, np.arange(rows) * step), -1)
    below = _below(grid, pose)
    beyond = np.maximum(outside - _HAIR_PX * (1.0 - below), 0.0)
    reach = _REACH_PX + (_NECK_PX - _REACH_PX) * below
    border = np.minimum(
        np.minimum(grid[..., 0], width - 1 - grid[..., 0]), np.minimum(grid[..., 1], height - 1 - grid[..., 1])
    ).clip(0.0)
    border = border / pose.scale
    share = _ease(border / (border + beyond + 1.0)) * (1.0 - _ease(beyond / reach))
    return PortraitDepth(step, np.asarray(depth, np.float32), np.asarray(share, np.float32))


def _fitted(landmarks: Float32, pose: HeadPose, identity: FaceIdentity, model: MorphableModel) -> Float64:
    """Return the identity's mesh in the portrait, float64 [V, 3], pixels and depth: its expression fitted to the landmarks."""
    camera = weak_perspective_of([pose])
    points = model.landmark_set("mediapipe")
    points = points.select((points.mediapipe >= 0) & (points.mediapipe < len(landmarks)))
    expression = coefficients_from_landmarks(
        model,
        landmarks[points.mediapipe][None],
        camera,
        landmarks=points,
        identity=identity.identity,
        offset=identity.offset,
        ridge=_RIDGE,
    ).expression[0]
    shape = model.shape(identity.identity, expression, identity.offset)
    return np.asarray(camera.project(np.asarray(shape, np.float64)[None])[0], np.float64)


def _below(grid: Float64, pose: HeadPose) -> Float64:
    """Return 1 below the mouth along the head's axis, 0 above and beside it."""
    down = pose.rotation[:2, 1] / max(float(np.linalg.norm(pose.rotation[:2, 1])), 1e-6)
    away = grid - pose.translation[:2]
    length = np.maximum(np.linalg.norm(away, axis=-1), 1e-6)
    return _ease((away @ down / length - 0.2) / 0.6)


def _without_cliffs(depth: Float64, rise: float) -> Float64:
    """Return the deepest surface before `depth` [h, w] that rises by at most `rise` from a node to the next: far sides come
    forward."""
    result = depth
    diagonal = np.sqrt(2.0) * rise
    for _ in range(max(depth.shape)):
        check_still_wanted()
        padded = np.pad(result, 1, mode="edge")
        nearer = result
        for down, across in ((0, 1), (1, 0), (1, 2), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2)):
            step = rise if 1 in (down, across) else diagonal
            nearer = np.minimum(nearer, padded[down : down + depth.shape[0], across : across + depth.shape[1]] + step)
        if np.array_equal(nearer, result):
            break
        result = nearer
    return result


def _ease(share: npt.NDArray[np.floating]) -> Float64:
    x = np.clip(np.asarray(share, np.float64), 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x), np.float64)
