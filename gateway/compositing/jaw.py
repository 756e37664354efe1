"""Moving of the filmed jaw to the target jaw, in the footage, before a rendered box is blended in.

The lower-face mask ends where the person's jaw is at its lowest. Where the jaw of the footage hangs low and the target jaw is
higher, the filmed chin would stay visible at the edge of the mask, below the new chin. So the footage is warped first: a
thin-plate spline takes the filmed contour of the jaw to the target contour. The edge of the render box rests, and so do places
beside the jaw, where the room behind the person may be seen. In between, the skin of the neck is stretched or squeezed.
Afterwards, pixel p of the box shows what the footage has at p + shift(p).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, NUM_LIPS
from services.common.face.thin_plate_spline import dense_map, evaluate_grid, fit_spline, warp

_CONTOUR: Final = slice(NUM_LIPS, NUM_LIPS + len(JAW) - 2)
"""Mouth-area landmarks of the jaw from ear to ear. The two points that close the ends lie on the cheeks."""
_MARGIN_PX: Final = 2.0
"""Contour points nearer than this to the edge of the box do not count, because the edge rests."""
_UNSEEN_PX: Final = 2.0
"""Distance of both jaws at which the footage is moved by half of it. Smaller distances show no second chin and are mostly noise of
tracker and prediction, so the neck follows them less."""
_SIDE_POINTS: Final = 5
"""Contour points on either side, from the ear down, beside which a place rests."""
_SIDE_PX: Final = 16.0
"""Distance of these places from the contour."""
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


def jaw_shift(filmed: Float32, target: Float32, mask: UInt8) -> Float32:
    """Return how the footage is moved: float32 [160, 160, 2], x and y, box pixels.

    The shift is 0 where neither the pixel nor any pixel above it in its column is under the mask, and 0 everywhere if both jaws
    are the same.

    Args:
        filmed: float32 [59, 2], mouth-area landmarks of the footage, box pixels.
        target: float32 [59, 2], mouth-area landmarks of the dub, box pixels.
        mask: uint8 [160, 160], lower-face mask.
    """
    contour = target[_CONTOUR]
    padded = np.pad(filmed[_CONTOUR] - contour, ((1, 1), (0, 0)), mode="edge")
    offsets = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    furthest = float((offsets * offsets).sum(axis=1).max())
    offsets *= furthest / (furthest + _UNSEEN_PX**2)
    inside = ((contour > _MARGIN_PX) & (contour < BOX_SIZE - 1 - _MARGIN_PX)).all(axis=1)
    beside = np.concatenate([contour[:_SIDE_POINTS] - _SIDEWAYS, contour[-_SIDE_POINTS:] + _SIDEWAYS])
    resting = np.concatenate([_EDGE, beside])
    points = np.concatenate([contour[inside], resting])
    values = np.concatenate([offsets[inside], np.zeros_like(resting)])
    smoothing = np.repeat([_CONTOUR_SMOOTHING, _REST_SMOOTHING], [int(inside.sum()), len(resting)])
    whole = dense_map(evaluate_grid(fit_spline(points, values, smoothing)))
    # The neck below the mask moves too, so each column of the mask reaches down to the edge of the box.
    reach = np.maximum.accumulate(mask, axis=0).astype(np.float32) / np.float32(255.0) * _RIM
    across, down = whole[..., 0] * reach, whole[..., 1] * reach
    moves = np.maximum(np.abs(across), np.abs(down)) >= _LEAST_PX
    return np.stack([across * moves, down * moves], axis=-1)


def warp_footage(box: UInt8, shift: Float32) -> UInt8:
    """Return a render box of the footage after the move, uint8 RGB [160, 160, 3].

    Args:
        box: uint8 RGB [160, 160, 3].
        shift: float32 [160, 160, 2], from `jaw_shift`.
    """
    return warp(box, _PIXELS + shift)
