"""What the predictors of expression coefficients share on the 25 frames/s grid."""

from __future__ import annotations

from services.common.array_types import Float32
from services.motion.constraints import ConstraintConfig
from services.motion.expression import expressed, expression_spread
from services.motion.expression_model import ExpressionModel
from services.motion.grid import Grid
from services.motion.models import MotionModels
from services.motion.style import Style


class ExpressionGrid(Grid):
    """Predictor of one person's expression coefficients on the grid; mouths come from the coefficients."""

    def __init__(
        self,
        model: ExpressionModel,
        models: MotionModels,
        style: Style,
        constraints: ConstraintConfig | None,
        heard: Float32,
        ahead: int,
    ) -> None:
        """Start at the first frame.

        Args:
            model: the predictor's network.
            models: the shared networks.
            style: the person.
            constraints: see Grid.
            heard: see Grid.
            ahead: see Grid.
        """
        super().__init__(style, constraints, heard, ahead)
        self._basis, self._coefficients = model.basis, model.coefficients
        self._spread = expression_spread(style.spread, models.basis, model.basis)

    def expression(self, mouth_landmarks: Float32) -> Float32:
        """Return coefficients of the morphable model from the person's rest mouth: float32 [T, num_expression]."""
        return self._coefficients(mouth_landmarks - self._style.rest_mouth)

    def _mouth(self, coefficients: Float32) -> Float32:
        """Return the mouth of coefficients [E] in units of the person's spread, before constraints: float32 [59, 3]."""
        return expressed(self._spread * coefficients, self._basis, self._style)
