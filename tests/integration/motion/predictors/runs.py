"""Runs of a few steps, and what a run or an export leaves."""

import csv
from pathlib import Path
from typing import Any

import pytest

from research.training.networks import TrainableNetwork
from research.training.trainset import TrainSet
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from tests.unit.motion.brief_training import train_briefly


def killed_and_resumed(network: TrainableNetwork, data: TrainSet, config: Any, folder: Path) -> Path:
    """Train, with an end of the process in step 3 and a second process that resumes the run; return the folder of the run."""
    with pytest.raises(KeyboardInterrupt):
        train_briefly(network, data, config, folder, killed_at=3)
    train_briefly(network, data, config, folder, resume=True)
    return folder


def figures_of(run: Path) -> set[str]:
    """Return the names of the figures in the curves of a run."""
    with (run / "curves.csv").open(newline="") as curves:
        return {row["figure"] for row in csv.DictReader(curves)}


def change_landmark_basis(weights: Path) -> None:
    """Change the basis of the landmarks in a folder of weights, as if another basis had been trained."""
    constants = weights / "motion_constants.safetensors"
    (weights / "export.json").unlink()  # which holds the digest of these constants
    held = decode_arrays(constants.read_bytes())
    constants.write_bytes(encode_arrays({**held.arrays, "typical_spread": 2.0 * held["typical_spread"]}, held.metadata))
