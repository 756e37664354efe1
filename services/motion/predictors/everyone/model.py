"""The exported network of `everyone` in ONNX Runtime."""

from __future__ import annotations

from services.common.array_types import Float32
from services.motion.expression_model import ExpressionModel
from services.motion.runtime import run


class EveryoneModel(ExpressionModel):
    """Audio-to-expression network and its constants, see ExpressionModel."""

    network_file = "everyone_motion.onnx"
    constants_file = "everyone_motion_constants.safetensors"

    def predict(self, speech: Float32) -> Float32:
        """Return the expression of one window's frame: float32 [E] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            speech: float32 [36, 192], see inputs.heard_clip.
        """
        coefficients: Float32 = run(self._network, speech=speech[None])[0][0]
        return coefficients
