"""Shutting eyes of a picture: the upper lid comes down over the eye, and its skin unfolds.

In coordinates along an eye (u from corner to corner, v across it) a column of skin is: brow side `fold`, lid margin `upper`, eye,
lid margin `lower`, cheek side `cheek`. Shutting by c brings the upper margin down to the lower margin, which comes up a
little. The skin between fold and margin stretches most in its middle, as a lid unfolds, and not at the margin, so lashes stay fine.
The eye is covered from above, and is hidden at c = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Bool, Float64

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


def _ease(share: Float64) -> Float64:
    """Return 0 to 1 without slope at either end."""
    x = np.clip(share, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x), np.float64)


def _inverse(function: Callable[[Float64], Float64], values: Float64, low: Float64, high: Float64) -> Float64:
    """Return where an increasing function takes these values, between `low` and `high`: by bisection."""
    begin, end = low.copy(), high.copy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (begin + end)
        beyond = function(middle) > values
        end = np.where(beyond, middle, end)
        begin = np.where(beyond, begin, middle)
    return 0.5 * (begin + end)
