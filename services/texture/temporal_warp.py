"""The temporal-warp network on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.store.exported_networks import read_network
from services.common.store.network_session import open_network

WEIGHTS: Final = Path(__file__).with_name("weights")
NETWORK_FILE: Final = "temporal_warp.onnx"
MAX_WINDOWS: Final = 3
"""Windows per run of the network. Smaller runs are filled up, so that a window always gives the same bits."""


class TemporalWarpModel:
    """The network, which the first use loads. Several streams may run the session at once."""

    def __init__(self, weights: Path = WEIGHTS, threads: int = 1) -> None:
        """Check the file of the network.

        Args:
            weights: folder with temporal_warp.onnx, or the ONNX file itself.
            threads: threads inside one run.

        Raises:
            ModelNotFoundError: there is no such file.
            ArtefactCorruptError: the file is damaged.
        """
        path = weights / NETWORK_FILE if weights.is_dir() else weights
        self.version = read_network(path).digest
        """First 12 digits of the file's sha256."""
        self._session = open_network(path, threads)

    def residual(self, target: Float32, source: Float32) -> Float32:
        """Return the moves of the source points of the windows' last frames, float32 [K, 86, 2], box pixels.

        Args:
            target: float32 [6, 86, 2], target control points t - 5 .. t, box pixels.
            source: float32 [K, 6, 86, 2], control points of K retrieved windows, 1 <= K <= 3.
        """
        count = len(source)
        filled = np.concatenate([source, np.repeat(source[-1:], MAX_WINDOWS - count, axis=0)])
        windows = np.repeat(target[None], MAX_WINDOWS, axis=0)
        moved = self._session.run(["delta"], {"wanted": windows, "source": filled})[0]
        return np.asarray(moved[:count], dtype=np.float32)
