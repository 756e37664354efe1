"""What the exported predictors of expression coefficients have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.motion.basis import LandmarkBasis
from services.motion.runtime import read_constants, session
from services.motion.types import Float32


class PredictorModel:
    """Network and constants of a predictor of expression coefficients. Calls from several threads are safe.

    Attributes:
        version: digest of the network.
        face_model: digest of the morphable model whose coefficients these are.
        num_expression: expression coefficients of that model; the network predicts the first ones.
        basis: the model's expression basis at the mouth-area points.
        constants: all of its arrays.
    """

    def __init__(self, network: Path, constants: Path, threads: int, made_by: str) -> None:
        """Load.

        Args:
            network: the exported network.
            constants: the arrays that go with it.
            threads: threads inside one inference.
            made_by: module that exports both.

        Raises:
            ModelNotFound: a file is missing.
        """
        self.constants = read_constants(constants)
        self.version = self.constants.metadata["version"]
        self.face_model = self.constants.metadata["face_model"]
        self.num_expression = int(self.constants.metadata["num_expression"])
        self.basis = LandmarkBasis.named(self.constants)
        self._network = session(network, threads, made_by)

    def coefficients(self, offsets: Float32) -> Float32:
        """Coefficients of the whole model from mouths less the rest mouth, float32 [T, 59, 3] -> [T, num_expression]."""
        found = np.zeros((len(offsets), self.num_expression), np.float32)
        for row, offset in zip(found, offsets, strict=True):  # one by one: a frame's bits must not depend on its neighbours
            row[: len(self.basis.typical_spread)] = self.basis.project(offset)
        return found
