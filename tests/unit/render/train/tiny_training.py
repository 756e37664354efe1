"""Tiny training set and tiny features for the tests of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from services.common.face.crops import head_template
from services.common.face.mouth_bank import MouthBank
from services.render.losses import Features
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork


class KilledError(Exception):
    """Stands for the end of the process."""


def write_set(folder: Path, bank: MouthBank, *, repeats: int = 1, use: str = "train") -> Path:
    """Write a training set of one clip as the face stage writes it, the bank's frames `repeats` times; return the folder."""
    count = bank.num_frames
    arrays = {
        "usable": np.ones(count, bool),
        "rotation": bank.rotation,
        "landmarks": np.repeat(head_template()[None], count, axis=0),
        "scale": np.ones(count),
        "translation": np.zeros((count, 3)),
        "boxes": bank.boxes,
        "mouth_landmarks": bank.mouth,
    }
    tiled = {name: np.ascontiguousarray(np.concatenate([values] * repeats)) for name, values in arrays.items()}
    save_file(tiled, folder / f"{use}.safetensors", {"use": use, "speaker": "drawn"})
    return folder


def tiny_features() -> Features:
    """Return features of a tiny perceptual network."""
    torch.manual_seed(4)
    return PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4))).requires_grad_(False).features


def dying_at(step: int, features: Features) -> Features:
    """Return features that end the run in the middle of a step; a step computes features twice."""
    calls: list[int] = []

    def looked_at(pictures: torch.Tensor) -> Sequence[torch.Tensor]:
        calls.append(0)
        if len(calls) > 2 * (step - 1):
            raise KilledError
        return features(pictures)

    return looked_at
