"""Expression coefficients of a morphable model as a basis of mouth motion.

    mouth = rest_mouth + sum_k e_k B_k          B_k: column k of the model's expression basis at the 59 mouth-area points

The person's rest mouth stands for identity and neutral expression together. So e is measured from the rest mouth: on the model, the
neutral shape is the person's own (`MorphableModel.with_neutral_shape`). Everything is linear, as the mouth landmarks are linear in
the expression in Everybody's Talkin', Sec. 3.2.2.

The module has what the predictors of expression coefficients share: the exported networks, and the prediction on the grid of
25 frames/s.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.store.network_session import open_network
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig
from services.motion.models import MotionModels, PredictorModel
from services.motion.person_predictor import PersonPredictor, amplified
from services.motion.runtime import read_constants
from services.motion.style import Style


def expression_spread(spread: Float32, mouth: LandmarkBasis, expression: LandmarkBasis) -> Float32:
    """Return the size of each expression coefficient of a person, from the spread of the person's style: float32 [E].

    So all predictors read the same spread of a style. The coefficients of `mouth` are taken as uncorrelated about the rest mouth.

    Args:
        spread: float32 [K], spread of the style.
        mouth: basis in which the spread was measured.
    """
    mixing = np.einsum("epd,kpd->ek", expression.dual.astype(np.float64), mouth.components.astype(np.float64))
    return np.asarray(np.sqrt((mixing**2) @ (spread.astype(np.float64) ** 2)), dtype=np.float32)


def expressed(coefficients: Float32, basis: LandmarkBasis, style: Style) -> Float32:
    """Return amplified mouths of expression coefficients from the rest mouth: [..., E] -> float32 [..., 59, 3]."""
    return amplified(style.rest_mouth + basis.reconstruct(coefficients), style)


def movement_weights(spread: Float64, expression: LandmarkBasis) -> Float64:
    """Return the weight of the squared error of each coefficient by how far the coefficient moves the mouth, float64 [E].

    Args:
        spread: float64 [E], size of each coefficient of the person.
    """
    return np.asarray((spread * np.linalg.norm(expression.components.reshape(len(spread), -1), axis=1)) ** 2)


class ExpressionModel(PredictorModel):
    """Network and constants of a predictor of expression coefficients.

    Attributes:
        face_model: digest of the morphable model that the coefficients belong to.
        num_expression: number of expression coefficients of the morphable model. The network predicts the first ones.
        basis: the morphable model's expression basis at the mouth-area points.
        constants: all arrays of the constants file.
    """

    network_file: ClassVar[str]
    """File name of the exported network."""
    constants_file: ClassVar[str]
    """File name of the arrays that belong to the network."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the network and the constants; see PredictorModel."""
        super().__init__(folder, threads)
        self.constants = read_constants(folder / self.constants_file)
        self.version = self.constants.metadata["version"]
        self.face_model = self.constants.metadata["face_model"]
        self.num_expression = int(self.constants.metadata["num_expression"])
        self.basis = LandmarkBasis.named(self.constants)
        self._network = open_network(folder / self.network_file, threads)

    def coefficients(self, offsets: Float32) -> Float32:
        """Return coefficients of the whole model: offsets from the rest mouth float32 [T, 59, 3] -> [T, num_expression]."""
        coefficients = np.zeros((len(offsets), self.num_expression), np.float32)
        for row, offset in zip(coefficients, offsets, strict=True):  # one by one: a frame's bits must not depend on its neighbours
            row[: len(self.basis.typical_spread)] = self.basis.project(offset)
        return coefficients


class ExpressionPredictor(PersonPredictor):
    """Predictor of one person's expression coefficients; mouths come from the coefficients."""

    def __init__(
        self,
        model: ExpressionModel,
        models: MotionModels,
        style: Style,
        constraints: ConstraintConfig | None,
        inputs: Float32,
        ahead: int,
    ) -> None:
        """Start at the first frame.

        Args:
            model: the predictor's network.
            constraints: see PersonPredictor.
            inputs: see PersonPredictor.
            ahead: see PersonPredictor.
        """
        super().__init__(style, constraints, inputs, ahead)
        self._basis, self._coefficients = model.basis, model.coefficients
        self._spread = expression_spread(style.spread, models.basis, model.basis)

    def expression(self, mouth_landmarks: Float32) -> Float32:
        """Return coefficients of the morphable model from the person's rest mouth: float32 [T, num_expression]."""
        return self._coefficients(mouth_landmarks - self._style.rest_mouth)

    def _mouth(self, coefficients: Float32) -> Float32:
        """Return the mouth of coefficients [E] in units of the person's spread, before constraints: float32 [59, 3]."""
        return expressed(self._spread * coefficients, self._basis, self._style)
