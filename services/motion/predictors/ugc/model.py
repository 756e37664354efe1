"""The exported motion network of `ugc` in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.motion.models import MotionModels
from services.motion.runtime import run

MODEL_FILE: Final = "motion.onnx"


class UgcModel:
    """Motion network of `ugc`. The network's basis is MotionModels.basis. Calls from several threads are safe."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the network.

        Args:
            folder: folder of the exported network.
            threads: threads inside one inference.

        Raises:
            ModelNotFound: the file is missing.
            ArtefactCorrupt: the file is damaged.
        """
        self._network = open_network(folder / MODEL_FILE, threads)

    @classmethod
    def of(cls, models: MotionModels) -> UgcModel:
        """Return the model that belongs to the shared networks; the first call loads the model."""
        return models.own(cls)

    def predict(self, content: Float32, modulation: Float32) -> Float32:
        """Return the motion of one window's frame: coefficients float32 [K] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            content: float32 [35, 4, 44], see features.content_rows.
            modulation: float32 [L, 2, C], modulation of the style.
        """
        coefficients: Float32 = run(self._network, content=content[None], modulation=modulation[None])[0][0]
        return coefficients
