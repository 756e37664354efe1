"""Errors of expression coefficients and of the landmarks that follow from them (Everybody's Talkin', App. A, Eq. 5).

    E_exp  = 1 / N_exp  sum_i |e(i) - e'(i)|          N_exp coefficients, in standard deviations of the model
    E_ldmk = 1 / N_ldmk sum_i |l(i) - l'(i)|_2        N_ldmk mouth-area landmarks, projected, crop pixels

In the paper, e is the fitted target that the network is trained on. Here, truth and result are both tracked on their crops and
fitted in the same way: one identity (the clip's own neutral face, measured on the enrolment part) and one pose per frame. The
landmarks of both are projected by the pose of the truth, so that they differ in expression only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Float32, Float64, Int64
from services.common.face.crops import fit_head_pose
from services.common.face.head_cameras import weak_perspective_of
from services.common.face.neutral import neutral_shape
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.default_model import default_model
from services.common.geometry.morphable_model import MorphableModel

NUM_EXPRESSION: Final = 24
"""Number of coefficients that are fitted and compared: the first ones of the default model, which methods predict.
The paper has 29."""
MIN_NEUTRAL_FRAMES: Final = 5
"""Fewest tracked frames from which a neutral face is measured."""

_MESH_POINTS: Final = 468


@dataclass(frozen=True, slots=True)
class FittedFrames:
    """Expression of T tracked frames of one person; NaN rows where no face was tracked.

    Attributes:
        expression: float64 [T, 24], standard deviations.
        known: int64 [N], the rows that were fitted.
        camera: head poses of these N rows, crop pixels.
    """

    expression: Float64 = field(repr=False)
    known: Int64 = field(repr=False)
    camera: WeakPerspective = field(repr=False)


class ExpressionErrors(NamedTuple):
    """Errors of T frames, float64 [T] each, NaN where truth or result is not tracked."""

    expression: Float64
    """E_exp, standard deviations."""
    landmark_px: Float64
    """E_ldmk, crop pixels; the face is 185 pixels wide."""


class PersonFace:
    """Face model of one person, with the person's own neutral face in place of the mean face.

    Args:
        neutral: float32 [468, 3], head space.
    """

    def __init__(self, neutral: Float32) -> None:
        self._model: MorphableModel = default_model().with_neutral_shape(neutral).truncated(expression=NUM_EXPRESSION)

    @classmethod
    def measured(cls, landmarks: Float32) -> PersonFace | None:
        """Return the face model of tracked crops, float32 [T, 478, 3] with NaN rows; None: too few frames are tracked."""
        known, camera = _cameras(landmarks)
        if len(known) < MIN_NEUTRAL_FRAMES:
            return None
        return cls(neutral_shape(camera.unproject(landmarks[known].astype(np.float64))))

    def fit(self, landmarks: Float32) -> FittedFrames:
        """Return the expression of tracked crops, float32 [T, 478, 3] in crop pixels, NaN rows where not tracked."""
        known, camera = _cameras(landmarks)
        expression = np.full((len(landmarks), NUM_EXPRESSION), np.nan)
        if len(known):
            fitted = coefficients_from_landmarks(
                self._model, landmarks[known, :_MESH_POINTS], camera, identity=np.zeros(self._model.num_identity)
            )
            expression[known] = fitted.expression / self._model.expression_deviation
        return FittedFrames(expression, known, camera)

    def errors(self, truth: FittedFrames, result: FittedFrames) -> ExpressionErrors:
        """Return E_exp and E_ldmk of the same frames in truth and result."""
        expression = np.abs(truth.expression - result.expression).mean(axis=1)
        distance = np.full(len(expression), np.nan)
        seen = [
            truth.camera.project(self._mouth(frames.expression[truth.known])) if len(truth.known) else np.zeros((0, 59, 3))
            for frames in (truth, result)
        ]
        distance[truth.known] = np.linalg.norm((seen[0] - seen[1])[..., :2], axis=-1).mean(axis=-1)
        return ExpressionErrors(expression, distance)

    def _mouth(self, expression: Float64) -> Float64:
        """Return the mouth-area landmarks of expressions [T, 24], float64 [T, 59, 3], head space."""
        area = self._model.landmark_set("mouth_area")
        basis = area.of_basis(self._model.expression_basis) * self._model.expression_deviation
        return np.asarray(area.of(self._model.mean_shape) + np.einsum("ndk,tk->tnd", basis, expression), np.float64)


def _cameras(landmarks: Float32) -> tuple[Int64, WeakPerspective]:
    """Return the rows that are tracked, and their head poses."""
    (known,) = np.nonzero(np.isfinite(landmarks[:, 0, 0]))
    return known.astype(np.int64), weak_perspective_of([fit_head_pose(mesh) for mesh in landmarks[known]])
