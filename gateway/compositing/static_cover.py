"""Things that stand before a face through a whole shot and do not move with the head: a microphone, a pop filter, a stand.

Two pictures explain a pixel of a frame: the median of the shot at the same point of the picture, and the median of the shot at the
same point of the head. Where the head moves, the pixels of a static thing agree with the first median only, and the pixels of the
face with the second median only. Surfaces without structure agree with both. So the whole thing is cut out by GrabCut (Rother,
Kolmogorov and Blake 2004) from the first median, with the pixels that agree with one median only as what is certain.

A static thing is a cover if most of its outline inside the face rests in the picture, if the thing reaches beyond the face, and if
its colours are not shades of the face. Outlines of beards, lips and glasses move with the head; a shadow is a shade of the face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.compositing.face_parts import inside_jaw
from gateway.compositing.movable import colours_in
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame, corners_of_box, head_template, head_to_box, invert
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.mouth_detail import grey

STATIC_FRAMES: Final = 32
"""Frames of a shot, evenly spread, in which a static thing is looked for."""
_LEAST_FRAMES: Final = 16
"""Fewest frames that tell a static thing from a face."""
_BOX: Final = (BOX_SIZE, BOX_SIZE)
_SMALL: Final = (BOX_SIZE // 2, BOX_SIZE // 2)
"""Size of the small boxes that are compared."""
_SMALL_FROM_BOX: Final = np.array([[0.5, 0.0, -0.25], [0.0, 0.5, -0.25]])
_LARGEST: Final = 2 * BOX_SIZE
"""Longest side of the part of the picture in which the boxes lie, pixels of small boxes. With a longer way, the face is behind
no static thing for long."""
_UNSEEN: Final = 255
"""Value of pixels outside a box. Values of boxes are at most 254."""
_CAP: Final = 24
"""Differences of CIE L, a or b (8-bit units) beyond which a pixel does not agree any less."""
_RESTS: Final = 10
"""Difference up to which a pixel rests."""
_OFTEN: Final = 0.9
"""Share of the frames in which a static pixel rests."""
_BEFORE: Final = 0.3
"""Share of the frames in which a pixel lies inside the face, from which on the head can tell about the pixel."""
_EVIDENCE: Final = 4.0
"""Mean by which a certain pixel agrees better with one median than with the other, 8-bit units."""
_LEAST_PX: Final = 20
"""Fewest certain pixels of a static thing. In 22 clips without a static thing, fewer were certain."""
_LEAST_OUTLINE: Final = 0.6
"""Least share of the outline inside the face that rests in the picture."""
_UPPER: Final = 36
"""Row of the box above which the face has neither lips nor beard."""
_TINT_STEP: Final = 6
"""Step of CIE a and b within which tints are alike."""
_PASSES: Final = 2
_ROUNDS: Final = 3
"""Passes over the shot, and rounds of GrabCut in each pass."""
_EDGE: Final = np.ones((3, 3), np.uint8)
_SPECKS: Final = np.ones((3, 3), np.uint8)
_GAPS: Final = np.ones((7, 7), np.uint8)
_AROUND: Final = np.ones((5, 5), np.uint8)
_NEAR: Final = np.ones((33, 33), np.uint8)
"""Surroundings of the face in which parts of a thing are looked for."""
_RIM: Final = np.ones((5, 5), np.uint8)
"""Pixels around a thing that do not show what the face looks like: edges are soft, and mixed with the face behind."""
_FULL: Final = np.uint8(255)
_PART: Final = 96
"""Weight of a thing, of 255, from which on a pixel of a box belongs to the thing."""
_STAYS: Final = 0.7
"""Share of a thing in a box that has to look as in the median, or the thing has gone."""
_WIDE_RIM: Final = np.ones((11, 11), np.uint8)
_FADE: Final = (5, 5)
_WIDE_FADE: Final = (11, 11)
_INPAINT_PX: Final = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class FaceBehind:
    """The face behind a static thing in one frame: the other half of the same face, or the face of other frames.

    Attributes:
        usual: uint8 [160, 160, 3], RGB, render box of the shot's median face without the thing.
        mirror: float64 [2, 3], position of a box pixel on the other half of the face, box pixels.
        weight: float32 [160, 160], 1 where the thing covers the face, falling to 0 beside the thing.
        mirrored: float32 [160, 160], 1 where the other half of the face is free, falling to 0 where the thing covers it too.
    """

    usual: UInt8
    mirror: Float64
    weight: Float32
    mirrored: Float32

    def over(self, picture: UInt8) -> UInt8:
        """Return a picture of the render box with the face in place of the thing.

        Args:
            picture: the footage's own box, uint8 [S, S, 3], RGB, or its luma, [S, S], at any size.
        """
        side = picture.shape[0]
        scale, size = side / BOX_SIZE, (side, side)
        centre = 0.5 * (scale - 1.0)
        offset = scale * self.mirror[:, 2] + centre - self.mirror[:, :2] @ np.full(2, centre)
        usual, weight, mirrored = (cv2.resize(part, size) for part in (self.usual, self.weight, self.mirrored))
        if picture.ndim == 3:
            weight, mirrored = weight[..., None], mirrored[..., None]
        else:
            usual = grey(np.asarray(usual, np.uint8))
        other = _seen_at(picture, np.column_stack([self.mirror[:, :2], offset]), size).astype(np.float32)
        face = usual + mirrored * (other - usual)
        return np.asarray(np.rint(picture + weight * (face - picture)), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class StaticCover:
    """A thing that stands before a face in one shot.

    Attributes:
        thing: uint8 [H, W], 1 in the thing, on a grid of box pixels that rests in the picture.
        looks: uint8 [H, W, 3], CIE Lab, how the thing looks on the grid.
        grid_from_frame: float64 [2, 3], frame pixels to pixels of the grid.
        face: uint8 [160, 160, 3], RGB, render box of the shot's median face without the thing.
    """

    thing: UInt8
    looks: UInt8
    grid_from_frame: Float64
    face: UInt8

    def in_box(self, box: UInt8, pose: HeadPose) -> UInt8 | None:
        """Return 1 where the thing covers a render box, uint8 [160, 160]; None: the thing is not there, or beside the box.

        Args:
            box: the footage's own render box, uint8 [160, 160, 3], RGB.
            pose: head pose of the frame.
        """
        box_from_grid = _after(box_from_frame(pose), invert(self.grid_from_frame))
        thing = np.asarray(cv2.warpAffine(self.thing * _FULL, box_from_grid, _BOX, flags=cv2.INTER_LINEAR) >= _PART, np.uint8)
        if not thing.any():
            return None
        looks = cv2.warpAffine(self.looks, box_from_grid, _BOX, flags=cv2.INTER_LINEAR)
        off = cv2.absdiff(cv2.cvtColor(box, cv2.COLOR_RGB2Lab), looks).max(axis=-1)
        return thing if float((off[thing > 0] <= _CAP).mean()) >= _STAYS else None

    def behind(self, thing: UInt8, filmed: Float32) -> FaceBehind:
        """Return the face behind the thing in a frame.

        Args:
            thing: uint8 [160, 160], where the thing is (in_box).
            filmed: float32 [59, 2], mouth-area landmarks of the frame, box pixels.
        """
        points = np.column_stack([filmed, np.ones(len(filmed))]).astype(np.float64)
        mirror = np.asarray(np.linalg.lstsq(points, filmed[_OPPOSITE].astype(np.float64), rcond=None)[0].T, np.float64)
        covered = np.asarray(cv2.dilate(thing, _WIDE_RIM), np.uint8)
        free = _seen_at(np.asarray(1 - covered, np.uint8), mirror, _BOX, border=0)
        mirrored = cv2.blur(cv2.erode(free, _WIDE_RIM).astype(np.float32), _WIDE_FADE)
        return FaceBehind(self.face, mirror, np.asarray(cv2.blur(covered.astype(np.float32), _FADE)), np.asarray(mirrored))


def _opposite() -> npt.NDArray[np.intp]:
    """Return the mouth-area landmark on the other half of the face of each mouth-area landmark, int [59]."""
    points = head_template()[list(MOUTH_AREA)]
    distances = np.linalg.norm(points[:, None] * np.array([-1.0, 1.0, 1.0]) - points[None], axis=-1)
    return np.asarray(distances.argmin(axis=1), np.intp)


_OPPOSITE: Final = _opposite()


def _seen_at(picture: UInt8, affine: Float64, size: tuple[int, int], border: int | None = None) -> UInt8:
    """Return what a picture has at an affine map, float64 [2, 3], of each pixel."""
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    return np.asarray(
        cv2.warpAffine(picture, affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=mode), np.uint8
    )


def find_static_cover(boxes: Sequence[UInt8], poses: Sequence[HeadPose], mouth: Float32) -> StaticCover | None:
    """Return what stands before a face in a shot; None: nothing, or the head moves too little to tell.

    Args:
        boxes: render boxes of frames of one shot, uint8 [160, 160, 3] each, RGB.
        poses: head poses of these frames.
        mouth: float32 [59, 3], the person's mean mouth, head space.
    """
    if len(boxes) < _LEAST_FRAMES:
        return None
    corners = np.concatenate([corners_of_box(invert(box_from_frame(pose))) for pose in poses])
    scale = 0.5 / float(np.median([pose.scale for pose in poses]))
    left, top = (corners.min(axis=0) * scale).tolist()
    width, height = np.ceil(np.ptp(corners, axis=0) * scale).astype(int).tolist()
    if max(width, height) > _LARGEST:
        return None
    grid_from_frame = np.array([[scale, 0.0, -left], [0.0, scale, -top]])
    grid_from_box = [_after(grid_from_frame, invert(_after(_SMALL_FROM_BOX, box_from_frame(pose)))) for pose in poses]

    def on_grid(picture: UInt8, index: int) -> UInt8:
        return np.asarray(cv2.warpAffine(picture, grid_from_box[index], (width, height), borderValue=(_UNSEEN,) * 3), np.uint8)

    small = [_small(box) for box in boxes]
    pictures = np.stack([np.minimum(cv2.cvtColor(picture, cv2.COLOR_RGB2Lab), _UNSEEN - 1) for picture in small])
    seen = np.stack([on_grid(np.zeros(_SMALL, np.uint8), index) == 0 for index in range(len(boxes))])
    filmed = np.stack([on_grid(picture, index) for index, picture in enumerate(pictures)])
    face = np.stack([on_grid(_small(inside_jaw(head_to_box(mouth, pose))), index) == 1 for index, pose in enumerate(poses)]) & seen
    still = _median(filmed, seen)
    by_picture = [_differences(picture, still) for picture in filmed]
    rests = np.sum([there & (off <= _RESTS) for there, off in zip(seen, by_picture, strict=True)], axis=0)
    shown, before = seen.sum(axis=0), face.sum(axis=0)
    static, inside = (shown > 0) & (rests >= _OFTEN * shown), before >= _BEFORE * len(boxes)
    near = cv2.dilate(inside.astype(np.uint8), _NEAR) > 0
    own: Bool | None = None
    thing: UInt8 | None = None
    for _ in range(_PASSES):
        # The thing itself must not count as what the face looks like.
        head = _median(pictures, np.stack([_free(thing, affine) for affine in grid_from_box]))
        gain = np.zeros((height, width), np.float32)
        for index, picture in enumerate(filmed):
            gain += face[index] * (_differences(picture, on_grid(head, index)).astype(np.float32) - by_picture[index])
        gain /= np.maximum(before, 1)
        certain = static & inside & (gain > _EVIDENCE)
        if certain.sum() < _LEAST_PX:
            return None
        if own is None:
            colours = colours_in(small, [_upper_face(mouth, pose) for pose in poses])
            own = colours.shades(np.asarray(cv2.cvtColor(still, cv2.COLOR_Lab2RGB), np.uint8))
        certain &= ~own
        moves = (shown > 0) & ~static | inside & (gain < -_EVIDENCE)
        if certain.sum() < _LEAST_PX:
            return None
        thing = _judged(_cut_out(still, certain, static & near, moves | (shown == 0)), certain, inside)
        if thing is None:
            return None
    assert thing is not None
    return StaticCover(thing, still, grid_from_frame, _without(thing, boxes, grid_from_box))


def _small(picture: UInt8) -> UInt8:
    return np.asarray(
        cv2.resize(picture, _SMALL, interpolation=cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST), np.uint8
    )


def _differences(first: UInt8, second: UInt8) -> UInt8:
    """Return the largest difference of L, a and b of each pixel, at most _CAP, uint8 [H, W]."""
    across, down, deep = cv2.split(cv2.absdiff(first, second))
    return np.minimum(np.asarray(cv2.max(cv2.max(across, down), deep), np.uint8), np.uint8(_CAP))


def _without(thing: UInt8, boxes: Sequence[UInt8], grid_from_box: Sequence[Float64]) -> UInt8:
    """Return the median face of some render boxes without a thing, uint8 RGB [160, 160, 3]."""
    free = np.stack([_free(thing, affine) for affine in grid_from_box])
    whole = np.stack([cv2.resize(part.view(np.uint8), _BOX, interpolation=cv2.INTER_NEAREST) > 0 for part in free])
    hidden = np.asarray(~whole.any(axis=0), np.uint8)
    return np.asarray(cv2.inpaint(_median(np.stack(boxes), whole), hidden, _INPAINT_PX, cv2.INPAINT_TELEA), np.uint8)


def _upper_face(mouth: Float32, pose: HeadPose) -> Bool:
    """Return the cheeks and the nose in a small box, bool [80, 80]."""
    face = np.asarray(cv2.erode(inside_jaw(head_to_box(mouth, pose)), _AROUND), np.uint8)
    face[_UPPER:] = 0
    return _small(face) > 0


def _free(thing: UInt8 | None, grid_from_box: Float64) -> Bool:
    """Return the pixels of a small box that a thing does not cover, bool [80, 80]."""
    if thing is None:
        return np.ones(_SMALL, np.bool_)
    covered = cv2.warpAffine(thing, invert(grid_from_box), _SMALL, flags=cv2.INTER_NEAREST)
    return np.asarray(cv2.dilate(covered, _RIM) == 0)


def _median(pictures: UInt8, seen: Bool) -> UInt8:
    """Return the median of each pixel over the pictures that show the pixel, uint8 [H, W, 3]; _UNSEEN where none does."""
    ordered = np.sort(np.where(seen[..., None], pictures, np.uint8(_UNSEEN)), axis=0)
    middle = np.maximum(seen.sum(axis=0) - 1, 0) // 2
    return np.ascontiguousarray(np.take_along_axis(ordered, middle[None, :, :, None], axis=0)[0])


def _cut_out(still: UInt8, certain: Bool, possible: Bool, other: Bool) -> UInt8:
    """Return 1 in a static thing, uint8 [H, W].

    Args:
        still: uint8 [H, W, 3], CIE Lab.
        certain: bool [H, W], pixels of the thing.
        possible: bool [H, W], pixels that may be of the thing, if they have its tints.
        other: bool [H, W], pixels that are not of the thing.
    """
    # Light and shade change the lightness of a thing.
    tints = still[..., 1].astype(np.int32) // _TINT_STEP * _UNSEEN + still[..., 2] // _TINT_STEP
    alike = cv2.dilate(certain.astype(np.uint8), _AROUND) > 0
    alike |= possible & np.isin(tints, np.unique(tints[certain]))
    marks = np.full(certain.shape, cv2.GC_PR_BGD, np.uint8)
    marks[alike] = cv2.GC_PR_FGD
    marks[other] = cv2.GC_BGD
    marks[certain] = cv2.GC_FGD
    if np.isin(marks, (cv2.GC_BGD, cv2.GC_PR_BGD)).sum() < _LEAST_PX:
        return np.zeros_like(marks)
    cv2.setRNGSeed(0)
    cv2.grabCut(still, marks, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK)
    thing = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.uint8)
    whole = cv2.morphologyEx(cv2.morphologyEx(thing, cv2.MORPH_OPEN, _SPECKS), cv2.MORPH_CLOSE, _GAPS)
    return np.where(other, np.uint8(0), np.asarray(whole, np.uint8))


def _judged(thing: UInt8, certain: Bool, inside: Bool) -> UInt8 | None:
    """Return the parts of a static thing that come from beside the face and whose outlines rest, uint8 [H, W]; None: no part."""
    count, parts = cv2.connectedComponents(thing, connectivity=8)
    near = cv2.dilate(certain.astype(np.uint8), _AROUND) > 0
    judged = np.zeros_like(thing)
    for part in range(1, count):
        this = parts == part
        outline = (cv2.dilate(this.astype(np.uint8), _EDGE) > 0) & ~this & inside
        crosses = outline.any() and (this & ~inside).any()
        if crosses and certain[this].sum() >= _LEAST_PX and near[outline].mean() >= _LEAST_OUTLINE:
            judged[this] = 1
    return judged if judged.any() else None


def _after(second: Float64, first: Float64) -> Float64:
    """Return the affine map that does `first` and then `second`, float64 [2, 3]."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])
