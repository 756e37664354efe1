"""Export the Audio ID-Removing Network: `python -m services.audio.identity_removal.export --run build/audio/id_removal`.

Writes weights/id_removal.onnx and, beside it, id_removal.json: configuration, sha256 and the parity of both implementations. A
parity failure fails the export, and nothing is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import load_file

from services.audio.export_windows import ExportSpec, WindowNetwork, run_command
from services.audio.identity_removal.network import IdRemovalConfig, IdRemovalNetwork, ServedIdRemoval
from services.audio.identity_removal.normalise import IDENTITY_WINDOW_ROWS
from services.audio.types import NUM_CEPSTRA
from services.common.array_types import Float32


def load_served(run: Path) -> ServedIdRemoval:
    """Return the network of a training run, in its form for serving."""
    config = json.loads((run / "config.json").read_text())
    network = IdRemovalNetwork(IdRemovalConfig(**config["network"]))
    network.load_state_dict(load_file(run / "last.safetensors"))
    return ServedIdRemoval(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of normalised cepstra."""
    return rng.standard_normal((count, IDENTITY_WINDOW_ROWS, NUM_CEPSTRA)).astype(np.float32)


ID_REMOVAL: Final = WindowNetwork(
    name="id_removal",
    served=load_served,
    windows=random_windows,
    max_bytes=1_500_000,
    spec=ExportSpec(outputs=("removed",), tolerance=5e-5),
)


if __name__ == "__main__":
    sys.exit(run_command(__doc__, ID_REMOVAL))
