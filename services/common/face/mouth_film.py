"""The inside of a mouth as a film between the lips, textured by two rigid patches: upper teeth and lower teeth.

The film closes the hole between the inner lips. The film's upper half shows a patch that is fixed to the skull, the lower half
shows a patch that is fixed to the jaw. The texture coordinates of the film's points are their places in head space; in the lower
half, the shift of the chin is subtracted. So an opening mouth uncovers teeth and does not stretch them. The film hangs at the lips.
Teeth lie a few pixels deeper, so a turned head shifts teeth in the patch by this depth times the tangent of the turn.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float64, Int32
from services.common.errors import InvalidRequest
from services.common.face.landmarks import LIPS_INNER
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel

_CHIN: Final = (148, 152, 377)
_COLUMNS: Final = len(LIPS_INNER) // 2 + 1
_UPPER: Final = np.arange(_COLUMNS)
_LOWER: Final = -np.arange(_COLUMNS) % len(LIPS_INNER)
"""Facing points of the ring of inner-lip points, from corner to corner."""

HALF_WIDTH_PX: Final = 40.0
"""Half of a patch's width, head-space pixels. Inner lips are about 57 wide."""
HEIGHT_PX: Final = 30.0
"""Height of a patch, head-space pixels."""
_REACH: Final = (10.0, 16.0)
"""How far a patch reaches behind its own lip and from the lip into the mouth, head-space pixels."""


def _strip(first: int) -> Int32:
    """Return the triangles of a band between two rows of points, int32 [2 * (columns - 1), 3], counter-clockwise from outside."""
    above = first + np.arange(_COLUMNS - 1)
    below = above + _COLUMNS
    return np.concatenate([np.stack([above, below, below + 1], 1), np.stack([above, below + 1, above + 1], 1)]).astype(np.int32)


class MouthFilm:
    """Film between a person's inner lips. Immutable.

    Attributes:
        triangles: int32 [40, 3], rows of `points_of`: 20 triangles of the upper half, then 20 of the lower half.
    """

    triangles: Final = np.concatenate([_strip(0), _strip(2 * _COLUMNS)])

    def __init__(self, model: MorphableModel, neutral: Float64) -> None:
        """Find the inner lips and the chin.

        Args:
            model: a morphable model.
            neutral: float64 [V, 3], the person's neutral face in head space.

        Raises:
            InvalidRequest: the model lacks a landmark of the inner lips or of the chin.
        """
        self._ring, self._chin = _landmarks(model, LIPS_INNER), _landmarks(model, _CHIN)
        self._origin = self._ring.of(neutral)[:, :2].mean(axis=0)
        self._chin_at_rest = self._chin.of(neutral).mean(axis=0)

    def points_of(self, shape: Float64) -> tuple[Float64, Float64]:
        """Return the film of a face shape.

        Args:
            shape: float64 [V, 3], head space.

        Returns:
            Points of the film, float64 [44, 3], head space: upper lip, middle, middle again, lower lip, each from the subject's
            right corner to the left; and places of the points in their patch, float64 [44, 2], 0..1. The first 22 points belong to
            the upper patch, the others to the lower patch.
        """
        ring = self._ring.of(shape)
        upper, lower = ring[_UPPER], ring[_LOWER]
        middle = 0.5 * (upper + lower)
        points = np.concatenate([upper, middle, middle, lower])
        flat = points[:, :2] - self._origin
        flat[2 * _COLUMNS :] -= (self._chin.of(shape).mean(axis=0) - self._chin_at_rest)[:2]
        top = np.repeat([-_REACH[0], -_REACH[1]], 2 * _COLUMNS)
        places = np.stack([(flat[:, 0] + HALF_WIDTH_PX) / (2.0 * HALF_WIDTH_PX), (flat[:, 1] - top) / HEIGHT_PX], axis=1)
        return points, np.clip(places, 0.0, 1.0)


def _landmarks(model: MorphableModel, wanted: tuple[int, ...]) -> LandmarkSet:
    known = model.landmark_set("mediapipe")
    row_of = {int(number): row for row, number in enumerate(known.mediapipe)}
    missing = [number for number in wanted if number not in row_of]
    if missing:
        raise InvalidRequest(
            f"the morphable model {model.name!r} has no points for MediaPipe's landmarks {missing}: its mouth cannot be closed",
            field="identity",
        )
    return known.select([row_of[number] for number in wanted])
