"""Training pairs of the temporal warp: a wanted sequence, and a sequence retrieved from the same speaker.

As in the paper (Sec. III-C) both sequences are real footage of one speaker. Here the retrieved sequence is searched, not drawn, so
that the errors are the same as in serving. The wanted sequence is disturbed like the output of a motion predictor.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import safe_open

from services.common.array_types import Float32
from services.common.face.actor_geometry import ANCHORS, ActorGeometry, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, to_head_space
from services.common.face.mouth_bank import WINDOW, MouthBank, make_bank, wanted_points, window_costs

CHAIN: Final = 13
"""Frames of a sequence: 5 of past and 8 that are answered."""
_MIN_DISTANCE: Final = 40
_GAP: Final = 1000
_BANK_CLIPS: Final = 5
_MIN_CLIP: Final = CHAIN + 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Configuration of the drawing of pairs."""

    worse_share: float = 0.3
    """Share of pairs whose retrieved sequence is drawn from the ten best sequences. In all other pairs the best is taken."""
    scale_spread: float = 0.15
    """Standard deviation of the factor by which the mouth's motion about the mean is multiplied."""
    wobble_px: float = 0.6
    """Standard deviation of a slow error of the mouth's shape, head-space pixels."""
    jitter_px: float = 0.15
    """Standard deviation of white jitter of each point, head-space pixels."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Control points of N pairs of sequences.

    Attributes:
        wanted: float32 [N, 13, 86, 2], box pixels.
        source: float32 [N, 13, 86, 2], box pixels.
    """

    wanted: Float32
    source: Float32


def load_banks(folder: Path, use: str) -> list[list[MouthBank]]:
    """Return the banks of a folder of tracked clips (`*.safetensors`, metadata `use` and `speaker`), by speaker, sorted by name.

    A bank holds up to five clips of one speaker, as many frames as an actor's bank, and no textures: training needs only points.
    """
    clips: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            if metadata["use"] == use and int(file.get_tensor("usable").sum()) >= _MIN_CLIP:
                clips[metadata["speaker"]].append(path)
    return [
        [_load_bank(paths[start : start + _BANK_CLIPS]) for start in range(0, len(paths), _BANK_CLIPS)]
        for _, paths in sorted(clips.items())
    ]


def draw_pairs(speakers: list[list[MouthBank]], count: int, config: PairConfig, seed: int) -> Pairs:
    """Return `count` pairs, in about equal numbers for all speakers."""
    random = np.random.default_rng(seed)
    wanted: list[Float32] = []
    source: list[Float32] = []
    while len(wanted) < count:
        banks = speakers[int(random.integers(len(speakers)))]
        drawn = _draw(banks[int(random.integers(len(banks)))], config, random)
        if drawn is not None:
            wanted.append(drawn[0])
            source.append(drawn[1])
    return Pairs(np.stack(wanted), np.stack(source))


def _draw(bank: MouthBank, config: PairConfig, random: np.random.Generator) -> tuple[Float32, Float32] | None:
    index = bank.frame_index
    starts = np.flatnonzero(index[CHAIN - 1 :] - index[: 1 - CHAIN] == CHAIN - 1)
    if not len(starts):
        return None
    begin = int(random.choice(starts))
    rows = np.arange(begin, begin + CHAIN)
    mouth = _shaken(bank.mouth[rows], bank.geometry, config, random)
    costs = window_costs(bank, mouth[:WINDOW], bank.rotation[rows[WINDOW - 1]])
    first = bank.window_rows[:, 0]
    chains = np.isin(first, starts) & (np.abs(index[first] - index[begin]) >= _MIN_DISTANCE)
    if not chains.any():
        return None
    order = np.argsort(np.where(chains, costs, np.inf), kind="stable")[: min(10, int(chains.sum()))]
    best = int(random.choice(order)) if random.random() < config.worse_share else int(order[0])
    found = np.arange(first[best], first[best] + CHAIN)
    poses = [HeadPose(1.0, bank.rotation[row], np.zeros(3)) for row in rows]
    wanted = np.stack([wanted_points(points, bank.geometry, pose) for points, pose in zip(mouth, poses, strict=True)])
    return wanted, bank.control_points[found]


def _shaken(mouth: Float32, geometry: ActorGeometry, config: PairConfig, random: np.random.Generator) -> Float32:
    # Errors of a predictor: too large or too small a motion, a slow error that neighbouring points share, and a little jitter.
    factor = 1.0 + config.scale_spread * random.standard_normal()
    phase = random.uniform(0, 2 * np.pi, mouth.shape[2])
    speed = random.uniform(0.1, 0.5)
    slow = np.sin(speed * np.arange(len(mouth))[:, None] + phase)[:, None, :]
    shape = mouth.mean(axis=0) - geometry.mean_mouth + random.standard_normal((1, 1, 3)) * 0.3
    wobble = config.wobble_px * slow * (random.standard_normal((1, mouth.shape[1], 3)) * 0.3 + shape / 3.0)
    jitter = config.jitter_px * random.standard_normal(mouth.shape)
    return np.asarray(geometry.mean_mouth + factor * (mouth - geometry.mean_mouth) + wobble + jitter, np.float32)


def _load_bank(paths: list[Path]) -> MouthBank:
    mouth, anchors, rotation, index = [], [], [], []
    for number, path in enumerate(paths):
        with safe_open(path, "numpy") as file:
            usable = np.flatnonzero(file.get_tensor("usable"))
            landmarks = file.get_tensor("landmarks")[usable][:, list(ANCHORS)]
            turns, shifts = file.get_tensor("rotation")[usable], file.get_tensor("translation")[usable]
            poses = map(HeadPose, file.get_tensor("scale")[usable].tolist(), turns, shifts)
            anchors.append(np.stack([to_head_space(points, pose) for points, pose in zip(landmarks, poses, strict=True)]))
            mouth.append(file.get_tensor("mouth_landmarks")[usable])
            rotation.append(turns)
            index.append(number * _GAP + usable)
    all_mouth = np.concatenate(mouth)
    return make_bank(
        np.zeros((len(all_mouth), 0, BOX_SIZE, 3), np.uint8),
        all_mouth,
        np.concatenate(rotation),
        np.concatenate(index),
        measure_geometry(all_mouth, np.concatenate(anchors)),
    )
