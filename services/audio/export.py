"""Export the trained network: `python -m services.audio.export --run build/audio/ppg`.

Writes weights/ppg.onnx and, beside it, ppg.json: configuration, sha256 and the parity of both implementations. A parity failure
fails the export, and nothing is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import load_file

from services.audio.export_windows import WindowNetwork, run_command
from services.audio.networks.ppg import PpgConfig, PpgNetwork, ServedPpg
from services.audio.types import NUM_CEPSTRA
from services.audio.windows import WINDOW_ROWS
from services.common.array_types import Float32


def load_served(run: Path) -> ServedPpg:
    """Return the best network of a training run, as it is served."""
    config = json.loads((run / "config.json").read_text())
    network = PpgNetwork(PpgConfig(**config["network"]))
    network.load_state_dict(load_file(run / "best.safetensors"))
    return ServedPpg(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of a speech-like scale."""
    windows = (rng.standard_normal((count, WINDOW_ROWS, NUM_CEPSTRA)) * 8.0).astype(np.float32)
    windows[..., 0] -= 35.0
    return windows


PPG: Final = WindowNetwork(name="ppg", served=load_served, windows=random_windows, max_bytes=4_000_000)


if __name__ == "__main__":
    sys.exit(run_command(__doc__, PPG))
