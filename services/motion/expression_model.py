"""What the exported predictors of expression coefficients share."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.motion.basis import LandmarkBasis
from services.motion.models import PredictorModel
from services.motion.runtime import read_constants


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
        found = np.zeros((len(offsets), self.num_expression), np.float32)
        for row, offset in zip(found, offsets, strict=True):  # one by one: a frame's bits must not depend on its neighbours
            row[: len(self.basis.typical_spread)] = self.basis.project(offset)
        return found
