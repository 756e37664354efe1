"""Export of the posteriorgram network to weights/ppg.onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.audio.networks.ppg import PpgConfig, PpgNetwork, ServedPpg
from services.audio.train.export_windows import WindowNetwork, export_network
from services.audio.train.network_file import load_network
from services.audio.types import NUM_CEPSTRA
from services.audio.windows import WINDOW_ROWS
from services.common.array_types import Float32
from services.training.run_folder import read_config


def load_served(run: Path) -> ServedPpg:
    """Return the network of a training run, as it is served.

    Raises:
        InvalidRequest: the folder holds no run of this network.
    """
    network = PpgNetwork(PpgConfig(**read_config(run, "posteriorgram")["network"]))
    load_network(network, run)
    return ServedPpg(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of a speech-like scale."""
    windows = (rng.standard_normal((count, WINDOW_ROWS, NUM_CEPSTRA)) * 8.0).astype(np.float32)
    windows[..., 0] -= 35.0
    return windows


PPG: Final = WindowNetwork(name="ppg", served=load_served, windows=random_windows)


def export(run: Path, folder: Path) -> Sequence[Path]:
    """Write `folder`/ppg.onnx, ppg.json and ppg.card.md; see services.audio.train.export_windows.export_network for the errors."""
    return export_network(PPG, run, folder)
