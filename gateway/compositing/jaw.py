"""Moving of the filmed jaw to the target jaw, in the footage, before a rendered box is blended in.

The lower-face mask ends where the person's jaw is at its lowest. Where the jaw of the footage hangs low and the target jaw is
higher, the filmed chin would stay visible at the edge of the mask, below the new chin. So the footage is warped first: a
thin-plate spline takes the filmed contour of the jaw to the target contour. The edge of the render box rests, and so do points
beside the jaw, where the room behind the person may be seen. In between, the skin of the neck is stretched or squeezed.
Afterwards, pixel p of the box shows what the footage has at p + shift(p).

Clothing, hair and background keep their samples (movable.py says which pixels these are). With d the distance to the nearest of
them, the neck moves by at most .8 d, so that it neither folds nor draws them in. The face moves over them: a pixel of clothing
changes only where the moved footage shows face near the target jaw. Where the face gives way, what lies next to it takes its place.

Far beside the lips, the cheeks are the footage's own, moved with the jaw. The rendered box shows only around mouth and chin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from gateway.compositing.face_parts import JAW_CONTOUR, inside_jaw
from services.common.array_types import Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS
from services.common.face.thin_plate_spline import dense_map, evaluate_grid, fit_spline, warp

_MARGIN_PX: Final = 2.0
"""Contour points nearer than this to the edge of the box do not count, because the edge rests."""
_UNSEEN_PX: Final = 2.0
"""Distance of both jaws at which the footage is moved by half of it. Smaller distances show no second chin and are mostly noise of
tracker and prediction, so the neck follows them less."""
_SIDE_POINTS: Final = 5
"""Contour points on either side, from the ear down, beside which a point rests."""
_SIDE_PX: Final = 16.0
"""Distance of these points from the contour."""
_CONTOUR_SMOOTHING: Final = 30.0
"""Regularisation of the spline on the contour, box pixels squared: the tracker's noise must not shake the neck."""
_REST_SMOOTHING: Final = 1.0
_RIM_PX: Final = 2.0
"""Height of the rim at the lower edge of the box in which the shift falls to exactly 0."""
_LEAST_PX: Final = 1.0 / 32
"""Smallest shift. Smaller shifts are set to 0, so that the samples of a jaw that agrees stay equal."""

_STEPS: Final = np.linspace(0.0, BOX_SIZE - 1.0, 9)
_EDGE: Final = np.array([(x, y) for y in _STEPS for x in _STEPS if x in _STEPS[[0, -1]] or y in _STEPS[[0, -1]]], np.float32)
_SIDEWAYS: Final = np.array([_SIDE_PX, 0.0], np.float32)
_PIXELS: Final = np.stack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE)), axis=-1).astype(np.float32)
_RIM: Final = np.clip((BOX_SIZE - 1 - _PIXELS[..., 1]) / _RIM_PX, 0.0, 1.0)
_YIELDING: Final = 0.8
"""Largest shift of the neck, as a share of the distance to the nearest pixel that keeps its samples. From 1 on, the neck folds."""
_EDGE_PX: Final = 1.5
"""Distance from pixels that keep their samples within which nothing of the neck changes: interpolation reaches beyond a pixel."""
_FADE_PX: Final = 2.0
"""Distance over which the rendered box fades towards pixels that keep their samples."""
_CHIN: Final = np.ones((11, 11), np.uint8)
"""The face reaches a few pixels beyond the tracked jaw."""
_CHIN_FADE: Final = (5, 5)
_FULL: Final = np.uint8(255)
_BESIDE_PX: Final = 16.0
"""Distance beside the lips of the footage and of the dub up to which the rendered box shows in full. Further out, the cheeks hardly
move with speech, and the footage has them with its own light, hair and microphones."""
_CHEEKS_PX: Final = 32.0
"""Distance beside the lips from which on the footage shows alone. The watermark needs the box: with 10 and 24 px, the mark of a dub
that was encoded again cannot be read."""
_SHRINKS: Final = (0.2, 0.8)
"""Widths of the far half of the lips, as shares of the near half, between which both distances shrink on the far side."""
_LIP_MIDDLES: Final = [MOUTH_AREA.index(0), MOUTH_AREA.index(17)]
"""Rows of the middles of the upper and the lower lip."""
_RIM_OF_FACE: Final = np.ones((5, 5), np.uint8)
"""The pixels at the edge of the face show a part of the face. They move with the face, or an outline of the filmed chin stays."""


def jaw_shift(filmed: Float32, target: Float32, mask: UInt8) -> Float32:
    """Return how the footage is moved: float32 [160, 160, 2], x and y, box pixels.

    The shift is 0 where neither the pixel nor any pixel above it in its column is under the mask, and 0 everywhere if both jaws
    are the same.

    Args:
        filmed: float32 [59, 2], mouth-area landmarks of the footage, box pixels.
        target: float32 [59, 2], mouth-area landmarks of the dub, box pixels.
        mask: uint8 [160, 160], lower-face mask.
    """
    contour = target[JAW_CONTOUR]
    padded = np.pad(filmed[JAW_CONTOUR] - contour, ((1, 1), (0, 0)), mode="edge")
    offsets = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    furthest = float((offsets * offsets).sum(axis=1).max())
    offsets *= furthest / (furthest + _UNSEEN_PX**2)
    inside = ((contour > _MARGIN_PX) & (contour < BOX_SIZE - 1 - _MARGIN_PX)).all(axis=1)
    beside = np.concatenate([contour[:_SIDE_POINTS] - _SIDEWAYS, contour[-_SIDE_POINTS:] + _SIDEWAYS])
    resting = np.concatenate([_EDGE, beside])
    points = np.concatenate([contour[inside], resting])
    values = np.concatenate([offsets[inside], np.zeros_like(resting)])
    smoothing = np.repeat([_CONTOUR_SMOOTHING, _REST_SMOOTHING], [int(inside.sum()), len(resting)])
    # The neck below the mask moves too, so each column of the mask reaches down to the edge of the box.
    reach = np.maximum.accumulate(mask, axis=0).astype(np.float32) / np.float32(255.0) * _RIM
    return _times(dense_map(evaluate_grid(fit_spline(points, values, smoothing))), reach)


def _times(shift: Float32, weight: Float32) -> Float32:
    """Return a shift, float32 [160, 160, 2], times a weight, float32 [160, 160]; 0 where the product is smaller than _LEAST_PX."""
    across, down = (np.asarray(cv2.multiply(plane, weight), np.float32) for plane in cv2.split(shift))
    rests = np.maximum(np.abs(across), np.abs(down)) < _LEAST_PX
    across[rests] = down[rests] = 0.0
    return np.asarray(cv2.merge([across, down]), np.float32)


def warp_footage(box: UInt8, shift: Float32) -> UInt8:
    """Return a render box of the footage after the move, uint8 RGB [160, 160, 3].

    Args:
        box: uint8 RGB [160, 160, 3].
        shift: float32 [160, 160, 2], from `move_jaw`.
    """
    return warp(box, _PIXELS + shift)


@dataclass(frozen=True, slots=True, eq=False)
class JawMove:
    """How the footage of one frame moves with the jaw, and where the rendered box shows.

    Attributes:
        shift: float32 [160, 160, 2], x and y, box pixels: what the footage has at p + shift(p) is seen at p.
        mask: uint8 [160, 160], weight of the rendered box; 255 = 1.
    """

    shift: Float32
    mask: UInt8

    def behind(self, covered: Bool) -> JawMove:
        """Return the same move behind what covers the face.

        Args:
            covered: bool [160, 160], pixels that keep the samples of the footage.
        """
        depth = cv2.distanceTransform((~covered).view(np.uint8), cv2.DIST_L2, 5)
        length = np.maximum(cv2.magnitude(*cv2.split(self.shift)), np.float32(_LEAST_PX))
        follows = np.clip(cv2.divide(depth - np.float32(_EDGE_PX), length, scale=_YIELDING), 0.0, 1.0)
        shown = np.minimum(depth / np.float32(_FADE_PX), np.float32(1.0))
        return JawMove(_times(self.shift, np.asarray(follows, np.float32)), np.asarray(np.rint(self.mask * shown), np.uint8))


def move_jaw(filmed: Float32, target: Float32, mask: UInt8, movable: Bool) -> JawMove:
    """Return how the footage moves, and where the rendered box shows, if some pixels of the footage keep their samples.

    Args:
        filmed: float32 [59, 2], mouth-area landmarks of the footage, box pixels.
        target: float32 [59, 2], mouth-area landmarks of the dub, box pixels.
        mask: uint8 [160, 160], lower-face mask.
        movable: bool [160, 160], pixels of the footage that may move and change (FaceColours.movable).
    """
    shift = jaw_shift(filmed, target, mask)
    mask = _beside_lips(mask, filmed, target)
    if movable.all():
        return JawMove(shift, mask)
    skin = movable.view(np.uint8)
    depth = cv2.distanceTransform(skin, cv2.DIST_L2, 5) - np.float32(_EDGE_PX)
    face = cv2.dilate(skin, _RIM_OF_FACE)
    # The moved face, around the target jaw, lies over clothing. OpenCV 5.0 reads an empty second map in a linear remap: it gives
    # other values from run to run.
    across, down = cv2.split(_PIXELS + shift)
    moved = cv2.remap(face * _FULL, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = inside_jaw(target)
    over = cv2.multiply(_near(inside), moved.astype(np.float32), scale=1.0 / float(_FULL))
    length = np.maximum(cv2.magnitude(*cv2.split(shift)), np.float32(_LEAST_PX))
    follows = np.minimum(cv2.divide(depth, length, scale=_YIELDING), np.float32(1.0))
    follows = cv2.max(cv2.max(follows, cv2.multiply(_near(inside_jaw(filmed)), face.astype(np.float32))), over)
    shown = cv2.max(cv2.max(np.minimum(depth / np.float32(_FADE_PX), np.float32(1.0)), over), inside.astype(np.float32))
    return JawMove(_times(shift, np.asarray(follows, np.float32)), np.asarray(np.rint(mask * shown), np.uint8))


def _beside_lips(mask: UInt8, *mouths: Float32) -> UInt8:
    """Return the mask, falling to 0 from _BESIDE_PX to _CHEEKS_PX left and right of the lips of all mouths, uint8 [160, 160].

    Args:
        mask: uint8 [160, 160].
        mouths: float32 [59, 2] each, mouth-area landmarks, box pixels.
    """
    across = np.concatenate([mouth[:NUM_LIPS, 0] for mouth in mouths])
    middle = float(np.mean([mouth[_LIP_MIDDLES, 0].mean() for mouth in mouths]))
    left, right = middle - float(across.min()), float(across.max()) - middle
    near = max(left, right, 1.0)
    columns = _PIXELS[0, :, 0] - middle
    sides = ((-columns, left), (columns, right))
    beside = np.max([(out - half) / (np.clip(half / near, *_SHRINKS) / _SHRINKS[1]) for out, half in sides], axis=0)
    share = np.clip((_CHEEKS_PX - beside) / (_CHEEKS_PX - _BESIDE_PX), 0.0, 1.0)
    return np.asarray(np.rint(mask * (share * share * (3.0 - 2.0 * share))), np.uint8)


def _near(inside: UInt8) -> Float32:
    """Return 1 inside a jaw and around it, falling to 0 within seven pixels of it, float32 [160, 160]."""
    return np.asarray(cv2.blur(np.asarray(cv2.dilate(inside, _CHIN), np.float32), _CHIN_FADE), np.float32)
