"""Tiny training set, tiny networks and whole runs for the tests of trainings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from research.render.people import People, PeopleSettings, person_clips
from research.training.device import CPU
from research.training.networks import Opening, TrainableNetwork
from research.training.run_folder import RunFolder
from research.training.training import Training
from research.training.trainset import MANIFEST, ClipRow, TrainSet, manifest_line, part_path
from services.common.face.crops import head_template
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.weights import save_weights
from tests.unit.motion.brief_training import train_briefly

SHARP, SOFT = 240.0, 90.0
"""Widths of faces in sharp and in soft footage, pixels."""


def add_clip(
    folder: Path, bank: MouthBank, name: str, *, speaker: str, split: str = "train", repeats: int = 1, **more: Any
) -> ClipRow:
    """Add a clip with the bank's frames, `repeats` times, to a training set; return its row. `more` are fields of the row."""
    count = bank.num_frames * repeats
    arrays = {
        "usable": np.ones(count, bool),
        "rotation": np.concatenate([bank.rotation] * repeats),
        "landmarks": np.repeat(head_template()[None], count, axis=0).astype(np.float32),
        "scale": np.ones(count),
        "translation": np.zeros((count, 3)),
        "boxes": np.concatenate([bank.boxes] * repeats),
        "mouth_landmarks": np.concatenate([bank.mouth] * repeats),
    }
    fields: dict[str, Any] = {"face_px": SHARP, "frames": count, "usable_frames": count, "seconds": count / 25, **more}
    row = ClipRow(
        name=name,
        shard="00000",
        file=f"{name}.mp4",
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        source="drawn",
        speaker=speaker,
        split=split,
        has_face=True,
        **fields,
    )
    path = part_path(folder, row.shard, row.name, "track")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({part: np.ascontiguousarray(values) for part, values in arrays.items()}, path)
    with (folder / MANIFEST).open("a", encoding="utf-8") as stream:
        stream.write(manifest_line(row))
    return row


def first_frames(bank: MouthBank, count: int) -> MouthBank:
    """Return a bank of the first `count` frames."""
    return make_bank(bank.boxes[:count], bank.mouth[:count], bank.rotation[:count], bank.frame_index[:count], bank.geometry)


def small_set(folder: Path, bank: MouthBank) -> TrainSet:
    """Return a set of two people to learn from, one in sharp footage, and of a third who is held out, with two frames to draw."""
    add_clip(folder, bank, "anna-1", speaker="anna")
    add_clip(folder, bank, "ben-1", speaker="ben", face_px=SOFT)
    add_clip(folder, first_frames(bank, 30), "cleo-1", speaker="cleo", split="val")
    return TrainSet(folder)


def people_of(data: TrainSet, settings: PeopleSettings | None = None, *, seed: int = 3) -> People:
    """Return the people to learn from."""
    return People(data, person_clips(data.of("train", pixels=True)), settings or PeopleSettings(), seed=seed)


def perceptual_run(folder: Path) -> Path:
    """Write a run of a tiny perceptual network; return its folder."""
    torch.manual_seed(4)
    network = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 4, 4)))
    RunFolder(folder, "perceptual", {}).begin(resume=False)
    save_weights(folder / "perceptual.safetensors", network, network.config.to_metadata())
    return folder


def opened(network: TrainableNetwork, config: Any, data: TrainSet, runs: Mapping[str, Path]) -> Training[Any]:
    """Return a training on the CPU."""
    return network.open(Opening(config, data, CPU, runs))


def run_whole_and_killed(
    network: TrainableNetwork, config: Any, data: TrainSet, runs: Mapping[str, Path], folder: Path, *, killed_at: int
) -> tuple[Path, Path]:
    """Return the folders of two runs: one without interruption, and one that was killed before a step and then resumed."""
    whole, broken = folder / "whole", folder / "broken"
    train_briefly(network, data, config, whole, runs=runs)
    with pytest.raises(KeyboardInterrupt):
        train_briefly(network, data, config, broken, runs=runs, killed_at=killed_at)
    train_briefly(network, data, config, broken, runs=runs, resume=True)
    return whole, broken


def weights_of(folder: Path) -> dict[str, bytes]:
    """Return the weights files of a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
