"""The paper `everybody`'s own metrics: errors of expression coefficients and of the landmarks that follow (App. A, Eq. 5).

    E_exp  = 1 / N_exp  sum_i |e(i) - e'(i)|          N_exp coefficients, in standard deviations of the model
    E_ldmk = 1 / N_ldmk sum_i |l(i) - l'(i)|_2        N_ldmk mouth-area landmarks, projected, crop pixels

The paper's e are what its network is trained on, by fitting. Here truth and result are both tracked on their crops and fitted the
same way: one identity (the clip's own neutral face, measured on the enrolment part), poses of their own. Landmarks are projected by
the truth's pose for both, so that they differ in expression alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.evaluation.types import Float32, Float64
from services.common.crops import fit_head_pose
from services.common.geometry.camera import WeakPerspective, weak_perspective_of
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.default_model import default_model
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.neutral import neutral_shape

NUM_EXPRESSION: Final = 24
"""Coefficients that are fitted and compared, the first of the default model: those that methods predict. The paper has 29."""
MIN_NEUTRAL_FRAMES: Final = 5
"""Fewer tracked frames say nothing of a neutral face."""

_MESH_POINTS: Final = 468
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedFrames:
    """T tracked frames of one person, fitted; NaN rows where no face was tracked.

    Attributes:
        expression: float64 [T, 24], standard deviations.
        known: int64 [N], the rows that were fitted.
        camera: of those N rows, crop pixels.
    """

    expression: Float64 = field(repr=False)
    known: Int64 = field(repr=False)
    camera: WeakPerspective = field(repr=False)


class ExpressionErrors(NamedTuple):
    """Errors of T frames, float64 [T] each, NaN where truth or result is not tracked."""

    expression: Float64
    """E_exp, standard deviations."""
    landmark_px: Float64
    """E_ldmk, crop pixels: the face is 185 of them wide."""


class PersonFace:
    """The face model of one person, with their own neutral face in place of the mean.

    Args:
        neutral: float32 [468, 3], head space.
    """

    def __init__(self, neutral: Float32) -> None:
        self._model: MorphableModel = default_model().with_neutral_shape(neutral).truncated(expression=NUM_EXPRESSION)

    @classmethod
    def measured(cls, landmarks: Float32) -> PersonFace | None:
        """The face of tracked crops, float32 [T, 478, 3] with NaN rows; None where too few frames are tracked."""
        known, camera = _cameras(landmarks)
        if len(known) < MIN_NEUTRAL_FRAMES:
            return None
        return cls(neutral_shape(camera.unproject(landmarks[known].astype(np.float64))))

    def fit(self, landmarks: Float32) -> FittedFrames:
        """Expression of tracked crops, float32 [T, 478, 3] in crop pixels, NaN rows where not tracked."""
        known, camera = _cameras(landmarks)
        expression = np.full((len(landmarks), NUM_EXPRESSION), np.nan)
        if len(known):
            fitted = coefficients_from_landmarks(
                self._model, landmarks[known, :_MESH_POINTS], camera, identity=np.zeros(self._model.num_identity)
            )
            expression[known] = fitted.expression / self._model.expression_deviation
        return FittedFrames(expression, known, camera)

    def errors(self, truth: FittedFrames, result: FittedFrames) -> ExpressionErrors:
        """E_exp and E_ldmk of the same frames in truth and result."""
        expression = np.abs(truth.expression - result.expression).mean(axis=1)
        distance = np.full(len(expression), np.nan)
        seen = [
            truth.camera.project(self._mouth(frames.expression[truth.known])) if len(truth.known) else np.zeros((0, 59, 3))
            for frames in (truth, result)
        ]
        distance[truth.known] = np.linalg.norm((seen[0] - seen[1])[..., :2], axis=-1).mean(axis=-1)
        return ExpressionErrors(expression, distance)

    def _mouth(self, expression: Float64) -> Float64:
        """Mouth-area landmarks of expressions [T, 24], float64 [T, 59, 3], head space."""
        area = self._model.landmark_set("mouth_area")
        basis = area.of_basis(self._model.expression_basis) * self._model.expression_deviation
        return np.asarray(area.of(self._model.mean_shape) + np.einsum("ndk,tk->tnd", basis, expression), np.float64)


def _cameras(landmarks: Float32) -> tuple[Int64, WeakPerspective]:
    """Rows that are tracked, and their head poses."""
    (known,) = np.nonzero(np.isfinite(landmarks[:, 0, 0]))
    return known.astype(np.int64), weak_perspective_of([fit_head_pose(mesh) for mesh in landmarks[known]])
