"""A still picture whose head turns (face profiling: Zhu et al. 2016, Sec. 4; Yi et al., Sec. 3.3.2) and whose eyes shut.

**Depth** of the picture, and the share by which each point follows the head (Zhu et al., Sec. 4.1).

Zhu et al. mesh the whole picture, with anchors of estimated depth around the face and at the border. Here depth and share are
smooth functions on a coarse grid: inside the face, depth is the depth of the fitted mesh; outside, depth falls back to the middle
of the skull, where the outline of the hair is. Face and hair follow the head wholly, neck and surroundings less and less, the
border not at all.

**Eyes.** To shut an eye, the upper lid comes down over the eye, and its skin unfolds.

In coordinates along an eye (u from corner to corner, v across it) a column of skin is: brow side `fold`, lid margin `upper`, eye,
lid margin `lower`, cheek side `cheek`. Shutting by c brings the upper margin down to the lower margin, which comes up a little.
The skin between fold and margin stretches most in its middle, as a lid unfolds, and not at the margin, so lashes stay fine. The
eye is covered from above, and is hidden at c = 1.

**Head turns.**

The picture becomes a surface with depth (`PortraitDepth`). Each point moves as the head moves a point of its depth, times the
share by which the point follows the head. The inverse of this smooth displacement is found on a coarse grid by fixed-point
iteration, and the portrait is resampled once. The surface has no holes, so the picture does not tear. Hidden sides are stretched,
which looks right for small turns only: the turn (pitch and yaw) away from the portrait's own pose is exact up to
EXACT_TURN_DEGREES and grows more and more slowly beyond, up to MAX_TURN_DEGREES. Roll, translation and scale are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.face.crops import HeadPose, weak_perspective_of
from services.common.face.identity import FaceIdentity
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rasterise import Backend, rasterise
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler
from services.common.server.call_context import check_not_cancelled
from services.texture.types import TurnedPortrait

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
"""Distance beyond the hair after which no point follows the head, head-space pixels: _REACH_PX beside and above the head, _NECK_PX
below."""
MAX_SLOPE: Final = 2.3
"""Largest slope, pixels of depth per pixel. A steeper flank would fold over in a turn."""
_SMOOTH_PX: Final = 2.5
_RIDGE: Final = 0.3
UPPER_LIDS: Final = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS: Final = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
"""Lid margins of both eyes, corner to corner, from smaller to larger x."""
BROWS: Final = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))
"""Lower borders of both brows, from smaller to larger x."""
_FOLD: Final = 0.75
"""Place where the skin begins to move, as a share of the way from the lid's margin to the brow."""
_LOWER_SHARE: Final = 0.12
"""Share of the way between the margins that the lower lid moves."""
_COVER: Final = 0.15
"""Share of the eye's height by which the shut lid reaches over the lower margin: landmarks lie a little inside the eye's white."""
_CHEEK: Final = 1.2
"""Place where the skin ends to move, heights of the eye below the lower margin."""
_BISECTIONS: Final = 16
_TINY: Final = 1e-9
_Number = TypeVar("_Number", np.uint8, np.float32)
EXACT_TURN_DEGREES: Final = 12.0
MAX_TURN_DEGREES: Final = 18.0
DEPTH_GAIN: Final = 1.4
"""Depth of the picture's surface divided by the depth of the mesh. A turned picture shows no new side of the nose and no new
shadow, so its head looks less turned: tracked again, the heads of six portraits had turned by .69 of the target yaw and .67 of the
pitch with the mesh's own depth, and by .92 and .89 with this factor (means)."""
_ITERATIONS: Final = 16
_EYE_MARGIN_PX: Final = 2.0
_FINER: Final = 3
_HUGE_EYE: Final = 1 << 21
"""Largest number of numbers in the map of an eye, two per pixel: a thousand pixels square."""
_SEAM_PX: Final = 0.5


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
        identity: the person's shape.
        model: the morphable model of the identity.
        backend: rasteriser.

    Raises:
        BackendUnavailableError: the rasteriser is not installed.
    """
    height, width = size
    step = max(1.0, max(size) / GRID_CELLS)
    rows, columns = (int(np.ceil((length - 1) / step)) + 1 for length in size)
    placed = _fitted(landmarks, pose, identity, model)
    nodes, away = placed[None, :, :2] / step, placed[None, :, 2]
    fragments = rasterise(nodes, away, model.triangles, rows, columns, cull="back", backend=backend)
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
        check_not_cancelled()
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
    """Return 0 to 1 without slope at either end."""
    x = np.clip(np.asarray(share, np.float64), 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x), np.float64)


@dataclass(frozen=True, eq=False)
class Eye:
    """One eye of a portrait.

    Attributes:
        origin: float64 [2], the corner with the smaller x, pixels.
        axes: float64 [2, 2], rows: along the eye and across it (downwards), unit.
        columns: float64 [N], u of the lines below, increasing, pixels.
        fold: float64 [N], v where the moving skin begins.
        upper: float64 [N], v of the upper margin.
        lower: float64 [N], v of the lower margin.
        cheek: float64 [N], where the moving skin ends.
    """

    origin: Float64
    axes: Float64
    columns: Float64
    fold: Float64
    upper: Float64
    lower: Float64
    cheek: Float64

    @classmethod
    def of(cls, landmarks: Float64, side: int) -> Eye:
        """Return the eye with the smaller (0) or larger x (1) of landmarks [478, 2], pixels."""
        upper, lower, brow = (landmarks[list(lines[side])] for lines in (UPPER_LIDS, LOWER_LIDS, BROWS))
        along = upper[-1] - upper[0]
        length = max(float(np.linalg.norm(along)), 1e-6)
        along = along / length
        axes = np.stack([along, [-along[1], along[0]]])
        columns = np.linspace(0.0, length, 33)

        def line(points: Float64) -> Float64:
            placed = (points - upper[0]) @ axes.T
            order = np.argsort(placed[:, 0], kind="stable")
            return np.asarray(np.interp(columns, placed[order, 0], placed[order, 1]), np.float64)

        above, below, brows = line(upper), line(lower), line(brow)
        below = np.maximum(below, above)
        height = float((below - above).max())
        below = below + _COVER * np.sqrt(height * (below - above))
        fold = above + np.minimum(_FOLD * (brows - above), -0.5 * height - 1e-3)
        return cls(upper[0], axes, columns, fold, above, below, below + _CHEEK * height + 1e-3)

    def box(self, margin: float) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of what moves, pixels."""
        u = np.concatenate([self.columns, self.columns])
        corners = self.origin + np.stack([u, np.concatenate([self.fold, self.cheek])], 1) @ self.axes
        left, top = corners.min(0) - margin
        right, bottom = corners.max(0) + margin
        return float(left), float(top), float(right), float(bottom)

    def shut(self, points: Float64, closure: float) -> Float64:
        """Return where points of the open portrait [..., 2] go when the eye closes by 0..1."""
        return self._moved(points, closure, opening=False)

    def opened(self, points: Float64, closure: float) -> Float64:
        """Return where points [..., 2] of the picture with the eye closed by 0..1 come from."""
        return self._moved(points, closure, opening=True)

    def between_lids(self, points: Float64, closure: float, margin: float) -> Bool:
        """Return whether points [..., 2] of the picture with the eye closed by 0..1 lie in the eye, or within `margin` pixels of
        the eye."""
        inside, _, v, columns = self._columns(points, closure)
        result = np.zeros(inside.shape, bool)
        upper, lower = columns.margins
        result[inside] = (v > upper - margin) & (v < lower + margin)
        return result

    def _moved(self, points: Float64, closure: float, *, opening: bool) -> Float64:
        inside, u, v, columns = self._columns(points, closure)
        result = np.array(points, np.float64)
        if closure > 0.0 and len(u):
            moved = columns.opened(v) if opening else columns.shut(v)
            result[inside] = self.origin + np.stack([u, moved], -1) @ self.axes
        return result

    def _columns(self, points: Float64, closure: float) -> tuple[Bool, Float64, Float64, _Columns]:
        """Return which points [..., 2] can move, bool [...]; u and v of those, [P]; the columns of skin that they are in."""
        placed = (points - self.origin) @ self.axes.T
        u, v = placed[..., 0], placed[..., 1]
        lines = [np.interp(u, self.columns, line) for line in (self.fold, self.upper, self.lower, self.cheek)]
        inside = (u > 0.0) & (u < self.columns[-1]) & (v > lines[0]) & (v < lines[3])
        fold, upper, lower, cheek = (line[inside] for line in lines)
        return inside, u[inside], v[inside], _Columns(fold, upper, lower, cheek, closure)


class _Columns(NamedTuple):
    """One column of skin for each point, float64 [P], and how far the eye is shut."""

    fold: Float64
    upper: Float64
    lower: Float64
    cheek: Float64
    closure: float

    @property
    def margins(self) -> tuple[Float64, Float64]:
        """The lids' margins after shutting."""
        way = self.closure * (self.lower - self.upper)
        return self.upper + (1.0 - _LOWER_SHARE) * way, self.lower - _LOWER_SHARE * way

    def shut(self, v: Float64) -> Float64:
        """Return v in the shut eye for v in the open eye."""
        upper, lower = self.margins
        share = (v - self.upper) / np.maximum(self.lower - self.upper, _TINY)
        eye = upper + share * (lower - upper)
        return np.where(v <= self.upper, self._upper_skin(v), np.where(v >= self.lower, self._lower_skin(v), eye))

    def opened(self, v: Float64) -> Float64:
        """Return the inverse."""
        upper, lower = self.margins
        above = _inverse(self._upper_skin, v, self.fold, self.upper)
        below = _inverse(self._lower_skin, v, self.lower, self.cheek)
        eye = self.upper + (v - upper) / np.maximum(lower - upper, _TINY) * (self.lower - self.upper)
        return np.where(v <= upper, above, np.where(v >= lower, below, eye))

    def _upper_skin(self, v: Float64) -> Float64:
        return v + (self.margins[0] - self.upper) * _ease((v - self.fold) / (self.upper - self.fold))

    def _lower_skin(self, v: Float64) -> Float64:
        return v - (self.lower - self.margins[1]) * _ease((self.cheek - v) / (self.cheek - self.lower))


def _inverse(function: Callable[[Float64], Float64], values: Float64, low: Float64, high: Float64) -> Float64:
    """Return where an increasing function takes these values, between `low` and `high`: by bisection."""
    begin, end = low.copy(), high.copy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (begin + end)
        beyond = function(middle) > values
        end = np.where(beyond, middle, end)
        begin = np.where(beyond, begin, middle)
    return 0.5 * (begin + end)


class PortraitRotation:
    """One portrait. Each answer depends on the portrait and the target pose alone. Threads may share the object."""

    def __init__(
        self,
        portrait: UInt8,
        landmarks: Float32,
        pose: HeadPose,
        identity: FaceIdentity,
        model: MorphableModel,
        *,
        backend: Backend = "numba",
    ) -> None:
        """Prepare the portrait.

        Args:
            portrait: uint8 [H, W, 3], RGB, upright.
            landmarks: float32 [478, 3], pixels of the portrait.
            identity: of FitIdentity on this picture: the depth of the face.
            model: the morphable model of the identity.
            backend: rasteriser.

        Raises:
            BackendUnavailableError: the rasteriser is not installed.
        """
        self._portrait, self._landmarks, self._pose = portrait, np.asarray(landmarks, np.float32), pose
        depth = portrait_depth(portrait.shape[:2], self._landmarks, pose, identity, model, backend=backend)
        self._step, self._share = depth.step, depth.share.astype(np.float64)
        rows, columns = depth.depth.shape
        across, down = np.meshgrid(np.arange(columns) * self._step, np.arange(rows) * self._step)
        self._grid = np.stack([across, down], -1)
        flat = float(pose.translation[2])
        self._surface = np.dstack([self._grid, flat + DEPTH_GAIN * (depth.depth - flat)])
        self._eyes = tuple(Eye.of(self._landmarks[:, :2].astype(np.float64), side) for side in (0, 1))

    def turn(self, pose: HeadPose, blink: float = 0.0) -> TurnedPortrait:
        """Return the portrait with its head in another pose.

        Args:
            pose: target pose, in the portrait's pixels.
            blink: closure of the eyes, 0 as in the portrait to 1 shut.
        """
        check_not_cancelled()
        reached = within_reach(pose, self._pose)
        source = self._map(reached)
        closure = float(np.clip(blink, 0.0, 1.0))
        picture = self._resampled(source)
        if closure:
            self._shut_eyes(picture, source, reached, closure)
        return TurnedPortrait(picture, self._moved_landmarks(reached, closure))

    def _map(self, pose: HeadPose) -> Float32:
        """Return where each pixel comes from, float32 [H, W, 2]."""
        moved = _moved(self._surface, self._pose, pose)[..., :2]
        displacement = (self._share[..., None] * (moved - self._grid)).astype(np.float32)
        grid = self._grid.astype(np.float32)
        source = grid - displacement
        for _ in range(_ITERATIONS):
            check_not_cancelled()
            cells = source / np.float32(self._step)
            source = grid - _sampled(displacement, cells, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
        return self._enlarged(source)

    def _enlarged(self, source: Float32) -> Float32:
        height, width = self._portrait.shape[:2]
        scale = 1.0 / self._step
        affine = np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        offset = source - self._grid.astype(np.float32)
        fine = np.asarray(cv2.warpAffine(offset, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)
        fine[..., 0] += np.arange(width, dtype=np.float32)
        fine[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return fine

    def _shut_eyes(self, picture: UInt8, source: Float32, pose: HeadPose, closure: float) -> None:
        """Draw the parts of `picture` that the lids move in anew."""
        for eye in self._eyes:
            part = self._around(eye, pose, source.shape[:2])
            if not source[part].size:
                continue
            shut = self._resampled(eye.opened(source[part].astype(np.float64), closure).astype(np.float32))
            # The visible part of an eye becomes less than a pixel high, so it is enlarged and averaged. A huge eye needs neither.
            finer = _FINER if source[part].size <= _HUGE_EYE else 1
            fine = cv2.resize(source[part], None, fx=finer, fy=finer, interpolation=cv2.INTER_LINEAR).astype(np.float64)
            size = (shut.shape[1], shut.shape[0])
            seam = eye.between_lids(fine, closure, _SEAM_PX).astype(np.float32)
            weight = cv2.resize(seam, size, interpolation=cv2.INTER_AREA)[..., None]
            smooth = cv2.resize(self._resampled(eye.opened(fine, closure).astype(np.float32)), size, interpolation=cv2.INTER_AREA)
            picture[part] = np.rint(shut * (1.0 - weight) + smooth * weight).astype(np.uint8)

    def _around(self, eye: Eye, pose: HeadPose, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return rows and columns of a picture of this height and width that hold an eye in this pose."""
        left, top, right, bottom = eye.box(_EYE_MARGIN_PX)
        corners = np.array([[x, y, self._landmarks[168, 2]] for x in (left, right) for y in (top, bottom)])
        moved = _moved(corners, self._pose, pose)[:, :2]
        margin = 0.25 * (right - left)
        low = np.floor(moved.min(0) - margin).astype(int).clip(0)
        high = np.minimum(np.ceil(moved.max(0) + margin).astype(int) + 1, [size[1], size[0]])
        return slice(low[1], max(high[1], low[1])), slice(low[0], max(high[0], low[0]))

    def _resampled(self, source: Float32) -> UInt8:
        # OpenCV reflects in a loop, once for every side that a point lies beyond the border; at a side of one pixel it never ends.
        sides = np.array(self._portrait.shape[1::-1], np.float32)
        border = cv2.BORDER_REFLECT_101 if sides.min() > 1 else cv2.BORDER_REPLICATE
        return _sampled(self._portrait, np.clip(source, -sides, 2.0 * sides), cv2.INTER_CUBIC, border)

    def _moved_landmarks(self, pose: HeadPose, closure: float) -> Float32:
        points = self._landmarks.astype(np.float64)
        for eye in self._eyes:
            points[:468, :2] = eye.shut(points[:468, :2], closure)
        return _moved(points, self._pose, pose).astype(np.float32)


def within_reach(target: HeadPose, portrait: HeadPose) -> HeadPose:
    """Return the target pose with its turn (pitch and yaw together) kept within MAX_TURN_DEGREES of the portrait's.

    Up to EXACT_TURN_DEGREES the pose is the target; roll, translation and scale always are.
    """
    angles = np.stack([np.asarray(euler_from_matrix(pose.rotation), np.float64) for pose in (portrait, target)])
    turn = angles[1, :2] - angles[0, :2]
    size = float(np.linalg.norm(turn))
    exact, room = np.radians(EXACT_TURN_DEGREES), np.radians(MAX_TURN_DEGREES - EXACT_TURN_DEGREES)
    if size <= exact:
        return target
    reached = exact + room * np.tanh((size - exact) / room)
    rotation = matrix_from_euler(np.array([*(angles[0, :2] + turn * (reached / size)), angles[1, 2]]))
    return HeadPose(target.scale, np.asarray(rotation, np.float64), target.translation)


def _sampled(values: npt.NDArray[_Number], points: Float32, interpolation: int, border: int) -> npt.NDArray[_Number]:
    """Return `values` [h, w, C] at points [H, W, 2]."""
    taken = cv2.remap(values, points[..., 0], points[..., 1], interpolation, borderMode=border)
    return np.asarray(taken, values.dtype)


def _moved(points: Float64, portrait: HeadPose, target: HeadPose) -> Float64:
    """Return points [..., 3] of the portrait's pixels that follow the head from one pose to the other."""
    head = (points - portrait.translation) @ portrait.rotation / portrait.scale
    moved: Float64 = target.scale * head @ target.rotation.T + target.translation
    return moved
