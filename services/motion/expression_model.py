"""The Audio-to-Expression network in ONNX Runtime, and the arrays that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.motion.predictor_model import PredictorModel
from services.motion.runtime import run
from services.motion.types import Float32

MODEL_FILE: Final = "audio_to_expression.onnx"
CONSTANTS_FILE: Final = "expression_constants.safetensors"


class ExpressionModel(PredictorModel):
    """Network and constants of the predictor `everybody`.

    Attributes, beside those of every PredictorModel:
        silence: float32 [20], the row of ID-removed cepstra that digital silence has.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load.

        Args:
            folder: where the exported network lies.
            threads: threads inside one inference.

        Raises:
            ModelNotFound: a file is missing.
        """
        super().__init__(folder / MODEL_FILE, folder / CONSTANTS_FILE, threads, "services.motion.export_expression")
        self.silence: Float32 = self.constants["silence"]

    def predict(self, window: Float32) -> Float32:
        """Expression of the frame that a window is about: float32 [E] in units of the person's spread.

        One window a call, always: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [25, 4, 24], ID-removed cepstra and band energies of a second.
        """
        coefficients: Float32 = run(self._network, window=window[None])[0][0]
        return coefficients
