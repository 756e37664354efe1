"""Export of the Audio ID-Removing Network to weights/id_removal.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.audio.identity_removal.network import IdRemovalConfig, IdRemovalNetwork, ServedIdRemoval
from services.audio.identity_removal.normalise import IDENTITY_WINDOW_ROWS
from services.audio.train.export_windows import ExportSpec, WindowNetwork, export_network
from services.audio.train.network_file import load_network
from services.audio.types import NUM_CEPSTRA
from services.common.array_types import Float32
from services.training.run_folder import read_config


def load_served(run: Path) -> ServedIdRemoval:
    """Return the network of a training run, in its form for serving.

    Raises:
        InvalidRequest: the folder holds no run of this network.
    """
    network = IdRemovalNetwork(IdRemovalConfig(**read_config(run, "id_removal")["network"]))
    load_network(network, run)
    return ServedIdRemoval(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of normalised cepstra."""
    return rng.standard_normal((count, IDENTITY_WINDOW_ROWS, NUM_CEPSTRA)).astype(np.float32)


ID_REMOVAL: Final = WindowNetwork(
    name="id_removal",
    served=load_served,
    windows=random_windows,
    spec=ExportSpec(outputs=("removed",), tolerance=5e-5),
)


def export(run: Path, folder: Path) -> Sequence[Path]:
    """Write `folder`/id_removal.onnx, id_removal.json and id_removal.card.md; see export_network for the errors."""
    return export_network(ID_REMOVAL, run, folder)
