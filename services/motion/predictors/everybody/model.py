"""The exported network of `everybody` in ONNX Runtime, with its constants."""

from __future__ import annotations

from pathlib import Path

from services.common.array_types import Float32
from services.motion.expression_model import ExpressionModel
from services.motion.runtime import run


class EverybodyModel(ExpressionModel):
    """Audio-to-Expression network and its constants.

    Attributes, beside those of ExpressionModel:
        silence: float32 [20], row of ID-removed cepstra of digital silence.
    """

    network_file = "audio_to_expression.onnx"
    constants_file = "expression_constants.safetensors"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """See ExpressionModel."""
        super().__init__(folder, threads)
        self.silence: Float32 = self.constants["silence"]

    def predict(self, window: Float32) -> Float32:
        """Return the expression of one window's frame: float32 [E] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [25, 4, 24], see inputs.heard_rows.
        """
        coefficients: Float32 = run(self._network, window=window[None])[0][0]
        return coefficients
