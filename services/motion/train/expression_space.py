"""The expression coefficients that trainings learn: bases, targets, and the facts that an export needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from services.common.array_types import Bool, Float32
from services.common.geometry.default_model import default_model
from services.motion.basis import LandmarkBasis
from services.motion.expression import NUM_EXPRESSION, expression_basis, expression_spread
from services.motion.style import measure_mouth
from services.motion.train.basis import STYLE_BASIS, basis_digest, style_basis
from services.training.networks import Opening


class ExpressionTarget(NamedTuple):
    """Expression of one clip.

    Attributes:
        coefficients: float32 [T, E], from the clip's own rest mouth, in units of the clip's own spread.
        spread: float32 [E], the clip's own spread.
    """

    coefficients: Float32
    spread: Float32


@dataclass(frozen=True, slots=True)
class ExpressionSpace:
    """Bases of mouths and of expression.

    Attributes:
        mouth: landmark basis of the style, in which the spread of a person is measured.
        expression: expression basis of the morphable model at the mouth-area points.
        face_model: digest of the morphable model.
        num_expression: number of expression coefficients of the morphable model.
    """

    mouth: LandmarkBasis
    expression: LandmarkBasis
    face_model: str
    num_expression: int

    @classmethod
    def of(cls, mouth: LandmarkBasis, num_coefficients: int = NUM_EXPRESSION) -> Self:
        """Return the first coefficients of the default model.

        Args:
            mouth: landmark basis of the style.
            num_coefficients: E.
        """
        face = default_model()
        return cls(mouth, expression_basis(face, mouth, num_coefficients), face.digest, face.num_expression)

    @classmethod
    def built_on(cls, opening: Opening, network: str, num_coefficients: int) -> Self:
        """Return the coefficients over the landmark basis that a training builds on, see basis.style_basis."""
        return cls.of(style_basis(opening, network), num_coefficients)

    def target(self, mouths: Float32, usable: Bool) -> ExpressionTarget:
        """Measure the expression of a clip. Rest mouth and spread are the clip's own, as in serving.

        Args:
            mouths: float32 [T, 59, 3], mouth landmarks in head space.
            usable: bool [T].
        """
        measured = measure_mouth(mouths[usable], self.mouth)
        spread = expression_spread(measured.spread, self.mouth, self.expression)
        coefficients = self.expression.project(mouths - measured.rest_mouth) / spread
        return ExpressionTarget(coefficients.astype(np.float32), spread)

    def facts(self) -> dict[str, str]:
        """Return the metadata of a run's file: the morphable model, and the digest of the landmark basis of the style."""
        return {
            "face_model": self.face_model,
            "num_expression": str(self.num_expression),
            STYLE_BASIS: basis_digest(self.mouth),
        }
