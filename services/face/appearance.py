"""Tells when something covers the lower face: its skin suddenly looks unlike itself.

The mesh network goes on drawing lips on whatever covers them, so its points can't tell. Their colours can: a vertex lies
on the same spot of skin in every frame, however the mouth opens, so its colour hardly changes. A frame's colours are
compared with the running mean of the same person; what changes over the whole face (light, exposure) is taken off first,
as seen on nose, cheeks and forehead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.crops import CROP_SIZE, HeadPose, apply_affine, crop_from_frame, head_template
from services.common.landmarks import CHEEKS, JAW, LIPS_INNER, NOSE_BASE
from services.common.sampling import sample_patch

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_PATCH: Final = 64
"""The face crop is looked at this small: colours are means over about 4 x 4 crop pixels."""


def _vertices() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Vertices inside the mean head's lower-face mask, without the inner lips; those of nose, upper cheeks and forehead."""
    head = head_template()
    x, y, _ = head.T
    hull = cv2.convexHull(head[[*NOSE_BASE, *CHEEKS, *JAW[:17]], :2])
    inside = np.array([cv2.pointPolygonTest(hull, (float(px), float(py)), False) >= 0 for px, py, _ in head])
    inner = np.isin(np.arange(len(head)), LIPS_INNER)
    eyes = (np.abs(np.abs(x) - 38.0) < 24.0) & (np.abs(y - head[33, 1]) < 14.0)
    upper = ~inside & (y < head[2, 1]) & (np.abs(x) < 60.0) & (y > head[151, 1]) & ~eyes
    return np.flatnonzero(inside & ~inner), np.flatnonzero(upper)


LOWER, UPPER = _vertices()
_HEAD: Final = head_template().astype(np.float64)
_DISTANCES: Final = np.linalg.norm(_HEAD[LOWER, None, :2] - _HEAD[None, LOWER, :2], axis=-1)
_NEIGHBOURS: Final = np.argsort(_DISTANCES, axis=1, kind="stable")[:, :7]
_SPACING: Final = np.sort(_DISTANCES, axis=1)[:, 1:5].mean(axis=1)
_AREAS: Final = _SPACING**2 / (_SPACING**2).sum()
"""Share of the lower face that a vertex stands for: they lie dense on the lips and far apart on the cheeks."""
_ACROSS_LOWER: Final = _HEAD[LOWER, 0] / _HEAD[454, 0]
_ACROSS_UPPER: Final = _HEAD[UPPER, 0] / _HEAD[454, 0]

_TOLERANCE: Final = np.array([25.0, 2.5, 2.5])
"""L, a, b: shadows change lightness, hardly the hue."""
_SPREAD: Final = 3.0
_FREE_TURN_DEGREES: Final = 4.0
_TURN_DEGREES: Final = 40.0
_RATE: Final = 0.02
_RATE_COVERED: Final = 0.004
_LEARN_BELOW: Final = 0.08
_LIGHT_OUTLIER: Final = 8.0
_SLOPE_PRIOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Appearance:
    """Colours (CIE Lab, 8-bit units) of one reading: float32 [LOWER, 3] and [UPPER, 3]."""

    lower: Float32
    upper: Float32


def sample_appearance(picture: npt.NDArray[np.uint8], landmarks: Float32, pose: HeadPose) -> Appearance:
    """The colours at the vertices of a face in uint8 RGB [H, W, 3]; landmarks float32 [478, 3], frame pixels."""
    shrink = _PATCH / CROP_SIZE
    affine = crop_from_frame(pose)
    affine[:, 2] += 0.5
    affine *= shrink
    affine[:, 2] -= 0.5
    patch = cv2.cvtColor(sample_patch(picture, affine, (_PATCH, _PATCH), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2Lab)
    points = apply_affine(affine, landmarks[:468])
    colours = cv2.remap(
        patch.astype(np.float32), points[None, :, 0], points[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[0]
    return Appearance(colours[LOWER], colours[UPPER])


class AppearanceMemory:
    """Running colours of one person in one shot. Feed it every frame, in order."""

    def __init__(self) -> None:
        self._lower: Float64 | None = None
        self._upper = np.zeros((len(UPPER), 3))
        self._variance = np.zeros((len(LOWER), 3))
        self._yaw = 0.0
        self._readings = 0

    def measure(self, seen: Appearance, yaw_degrees: float) -> float:
        """Share of the lower face that looks covered, 0 to 1, judged by the frames before; 0 in the first one.

        A colour is foreign where it is off by more than the person's own variation and a tolerance, which grows as the head turns
        away from where it usually was: shading does not follow the mesh. Single vertices don't count, only patches of seven.
        """
        if self._lower is None:
            self._lower, self._upper = seen.lower.astype(np.float64), seen.upper.astype(np.float64)
            self._yaw, self._readings = yaw_degrees, 1
            return 0.0
        upper = seen.upper - self._upper
        change = seen.lower - self._lower - _light_change(upper)
        turned = max(0.0, abs(yaw_degrees - self._yaw) - _FREE_TURN_DEGREES) / _TURN_DEGREES
        tolerance = _TOLERANCE * (1.0 + turned)
        off = np.sqrt((change**2 / (_SPREAD * self._variance + tolerance**2)).mean(axis=1))
        share = float(_AREAS[np.median(off[_NEIGHBOURS], axis=1) > 1.0].sum())
        self._readings += 1
        # Under cover nearly nothing is learnt, yet a change of light that stays is accepted after some seconds.
        rate = max(1.0 / self._readings, _RATE) if share < _LEARN_BELOW else _RATE_COVERED
        weights = np.where(off < 1.0, rate, 0.2 * rate)[:, None]
        self._lower += weights * change
        self._variance += weights * (change**2 - self._variance)
        self._upper += rate * upper
        self._yaw += rate * (yaw_degrees - self._yaw)
        return share


def _light_change(upper: Float64) -> Float64:
    """The lower face's change [LOWER, 3] that follows from the upper's [UPPER, 3]: a constant and a slope across the face."""
    constant = np.median(upper, axis=0)
    rest = upper - constant
    weights = (1.0 / (1.0 + (rest / _LIGHT_OUTLIER) ** 2)).mean(axis=1)
    slope = (weights * _ACROSS_UPPER) @ rest / (weights @ _ACROSS_UPPER**2 + _SLOPE_PRIOR)
    return np.asarray(constant + _ACROSS_LOWER[:, None] * slope)
