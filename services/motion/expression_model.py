"""The Audio-to-Expression network in ONNX Runtime, and the arrays that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.common.errors import ModelNotFound
from services.common.tensor_bytes import decode_arrays
from services.motion.basis import LandmarkBasis
from services.motion.runtime import run, session
from services.motion.types import Float32

MODEL_FILE: Final = "audio_to_expression.onnx"
CONSTANTS_FILE: Final = "expression_constants.safetensors"


class ExpressionModel:
    """Network and constants of the predictor `everybody`. Calls from several threads are safe.

    Attributes:
        version: digest of the network.
        face_model: digest of the morphable model whose coefficients these are.
        num_expression: expression coefficients of that model; the network predicts the first ones.
        basis: the model's expression basis at the mouth-area points.
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
        constants = folder / CONSTANTS_FILE
        if not constants.is_file():
            raise ModelNotFound(f"no file {constants}", resource=constants.name)
        named = decode_arrays(constants.read_bytes())
        self.version = named.metadata["version"]
        self.face_model = named.metadata["face_model"]
        self.num_expression = int(named.metadata["num_expression"])
        self.basis = LandmarkBasis(named["components"], named["dual"], named["typical_spread"])
        self.silence: Float32 = named["silence"]
        self._network = session(folder / MODEL_FILE, threads, "services.motion.export_expression")

    def predict(self, window: Float32) -> Float32:
        """Expression of the frame that a window is about: float32 [E] in units of the person's spread.

        One window a call, always: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [25, 4, 24], ID-removed cepstra and band energies of a second.
        """
        coefficients: Float32 = run(self._network, window=window[None])[0][0]
        return coefficients

    def coefficients(self, offsets: Float32) -> Float32:
        """Coefficients of the whole model from mouths less the rest mouth, float32 [T, 59, 3] -> [T, num_expression]."""
        found = np.zeros((len(offsets), self.num_expression), np.float32)
        for row, offset in zip(found, offsets, strict=True):  # one by one: a frame's bits must not depend on its neighbours
            row[: len(self.basis.typical_spread)] = self.basis.project(offset)
        return found
