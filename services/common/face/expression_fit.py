"""One person's face mesh without rigid motion, and the expression that brings the person's mouth to wanted landmarks.

The expression is fitted to the 59 mouth-area landmarks on the person's own neutral face, by any predictor. The fit is one linear
map, computed once:

    beta = argmin |M (B beta - (mouth - neutral mouth))|^2 + ridge |beta / deviation|^2,    M = diag(1, 1, sqrt(depth weight))

A frame costs one product of matrices and depends on no other frame.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating
from services.common.errors import InvalidRequest
from services.common.face.crops import head_template
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import MOUTH_AREA, NUM_MOUTH_AREA, STABLE
from services.common.geometry.alignment import similarity
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel

RIDGE_PX2: Final = 0.1
"""Pull of the expression towards rest, squared head-space pixels per squared standard deviation."""
DEPTH_WEIGHT: Final = 0.3
"""Weight of a landmark's depth, which is the tracker's least certain number."""
_MIN_RIGID: Final = 6
_MIN_MOUTH_POINTS: Final = 8
_FIELD: Final = "identity"


class ExpressionFit:
    """Neutral face and expression fit of one person. Immutable after construction: threads may share the object."""

    def __init__(self, identity: FaceIdentity, model: MorphableModel) -> None:
        """Prepare the maps.

        Args:
            identity: identity of FitIdentity.
            model: the morphable model of the identity.

        Raises:
            InvalidRequest: the model has too few mouth landmarks for an expression.
        """
        points, self._rows = _mouth_points(model)
        self._neutral = _in_head_space(np.asarray(identity.neutral(model), np.float64), model)
        self._neutral_mouth = points.of(self._neutral)
        metric = np.sqrt(np.array([1.0, 1.0, DEPTH_WEIGHT]))[:, None]
        basis = points.of_basis(model.expression_basis).astype(np.float64)
        scaled = (basis * model.expression_deviation * metric).reshape(-1, model.num_expression)
        normal = scaled.T @ scaled + RIDGE_PX2 * np.eye(model.num_expression)
        solve = np.linalg.solve(normal, scaled.T).reshape(model.num_expression, len(points), 3)
        self._fit = (solve * metric[:, 0] * np.asarray(model.expression_deviation, np.float64)[:, None, None]).reshape(
            model.num_expression, -1
        )
        self._basis = model.expression_basis.astype(np.float64).reshape(-1, model.num_expression)

    @property
    def neutral(self) -> Float64:
        """Return the person's face without expression in head space, float64 [V, 3]."""
        return self._neutral

    def expression_of(self, mouth: Floating) -> Float32:
        """Return expression coefficients, float32 [E], that bring the person's mouth to the given landmarks.

        Args:
            mouth: float [59, 3], mouth-area landmarks in head space.

        Raises:
            InvalidRequest: the shape is another one, or a value is not finite.
        """
        points = np.asarray(mouth, np.float64)
        if points.shape != (NUM_MOUTH_AREA, 3) or not np.isfinite(points).all():
            raise InvalidRequest("mouth landmarks must be [59, 3] and finite", field="mouth_landmarks")
        return np.asarray(self._fit @ (points[self._rows] - self._neutral_mouth).ravel(), np.float32)

    def shape_of(self, expression: Floating) -> Float64:
        """Return the person's face in head space, float64 [V, 3], for coefficients [E]."""
        return self._neutral + (self._basis @ np.asarray(expression, np.float64)).reshape(-1, 3)


def _mouth_points(model: MorphableModel) -> tuple[LandmarkSet, npt.NDArray[np.intp]]:
    """Return the model's points that are mouth-area landmarks, and their rows among the 59."""
    known = model.landmark_set("mediapipe")
    row_of = {number: row for row, number in enumerate(MOUTH_AREA)}
    chosen = [index for index, number in enumerate(known.mediapipe) if int(number) in row_of]
    if len(chosen) < _MIN_MOUTH_POINTS:
        raise InvalidRequest(
            f"the morphable model {model.name!r} has {len(chosen)} landmarks of the mouth; {_MIN_MOUTH_POINTS} are needed",
            field=_FIELD,
        )
    return known.select(chosen), np.array([row_of[int(known.mediapipe[index])] for index in chosen], np.intp)


def _in_head_space(neutral: Float64, model: MorphableModel) -> Float64:
    """Return the neutral face, turned, placed and sized like the mean head on the rigid points, as head poses require.

    A face measured on footage hardly moves. A face inferred from a still picture moves by a few tenths of a pixel.
    """
    known = model.landmark_set("mediapipe")
    rigid = known.select(np.isin(known.mediapipe, STABLE))
    if len(rigid) < _MIN_RIGID:
        return neutral
    return np.asarray(similarity(rigid.of(neutral), head_template()[rigid.mediapipe].astype(np.float64)).apply(neutral), np.float64)
