"""Training footage of the renderers: tracked clips grouped by person, and what all sources of batches share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
from safetensors import safe_open

from services.common.array_types import Float32, Float64, UInt8
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.pairs import LandmarkNoise
from services.render.train.recipe import Recipe

_CLIP_STRIDE: Final = 100_000
"""Added to the frame index from clip to clip of one person, so that no window runs over a cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """All usable frames of one person.

    Attributes:
        name: the person's name in the clips' metadata.
        bank: the frames.
        sharp: whether the footage has at least the resolution of the render box.
    """

    name: str
    bank: MouthBank
    sharp: bool


def read_people(folder: Path, *, use: str, max_clips: int, sharp_marks: Sequence[str], only: Sequence[str] = ()) -> list[Person]:
    """Return the clips of a training set, grouped by person.

    Args:
        folder: folder of `*.safetensors`, as the face stage's training-set command writes them.
        use: use of the clips in their metadata: train, val or dev.
        max_clips: largest number of clips of one person; the first clips by name are taken.
        sharp_marks: parts of clip names that mark footage of full resolution. Such clips form a person of their own.
        only: parts of clip names to take. Empty: all clips.

    Raises:
        ValueError: no clip fits.
    """
    groups: dict[tuple[str, bool], list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            metadata, names = file.metadata(), set(file.keys())
        if metadata["use"] != use or "boxes" not in names or (only and not any(mark in path.name for mark in only)):
            continue
        sharp = any(mark in path.name for mark in sharp_marks)
        groups.setdefault((metadata["speaker"] or path.name.split(".")[0], sharp), []).append(path)
    if not groups:
        raise ValueError(f"{folder} holds no clip with use={use}, render boxes and a name like {list(only) or 'any'}")
    return [Person(name, _read_bank(paths[:max_clips]), sharp) for (name, sharp), paths in sorted(groups.items())]


def training_people(folder: Path, recipe: Recipe) -> list[Person]:
    """Return the people of a training set that a recipe trains on; see `read_people`."""
    return read_people(folder, use="train", max_clips=recipe.max_clips, sharp_marks=recipe.sharp_marks)


def _read_bank(paths: Sequence[Path]) -> MouthBank:
    boxes, mouth, rotation, index = [], [], [], []
    anchors: list[Float32] = []
    for clip, path in enumerate(paths):
        with safe_open(path, "numpy") as file:
            usable = np.flatnonzero(file.get_tensor("usable"))
            rotations = file.get_tensor("rotation")
            landmarks, scale, translation = (file.get_tensor(key) for key in ("landmarks", "scale", "translation"))
            boxes.append(file.get_tensor("boxes")[usable])
            mouth.append(file.get_tensor("mouth_landmarks")[usable])
        rotation.append(rotations[usable])
        index.append(usable + clip * _CLIP_STRIDE)
        anchors.extend(
            to_head_space(landmarks[t][list(ANCHORS)], HeadPose(float(scale[t]), rotations[t], translation[t])) for t in usable
        )
    all_mouth = np.concatenate(mouth)
    geometry = measure_geometry(all_mouth, np.stack(anchors))
    return make_bank(np.concatenate(boxes), all_mouth, np.concatenate(rotation), np.concatenate(index).astype(np.int64), geometry)


def person_shares(people: Sequence[Person], sharp_share: float) -> Float64:
    """Return how often each person is drawn, sum 1: by the root of their frames, sharp footage as often as `sharp_share` says."""
    sharp = np.array([person.sharp for person in people])
    frames = np.sqrt([person.bank.num_frames for person in people])
    shares = np.where(sharp, frames / max(frames[sharp].sum(), 1e-9) * sharp_share, 0.0)
    rest = 1.0 - shares.sum()
    soft = np.where(sharp, 0.0, frames)
    shares += soft / soft.sum() * rest if soft.any() else 0.0
    return np.asarray(shares / shares.sum(), dtype=np.float64)


class Batch(Protocol):
    """Examples of one step."""

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network, uint8 [B, 160, 160, C]."""

    @property
    def targets(self) -> UInt8:
        """The footage, uint8 [B, 160, 160, 3]."""


SomeBatch_co = TypeVar("SomeBatch_co", bound=Batch, covariant=True)


class Source(ABC, Generic[SomeBatch_co]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        sharp_share: share of the examples that comes from sharp footage.
        seed: random seed.
    """

    def __init__(self, people: Sequence[Person], *, sharp_share: float, seed: int) -> None:
        self._people = people
        self._shares = person_shares(people, sharp_share)
        self._noise = LandmarkNoise()
        self._seed = seed

    @abstractmethod
    def batch(self, step: int, size: int) -> SomeBatch_co:
        """Return a batch of single examples: the same for the same seed and step, so that a resumed training gets the same batches.

        Args:
            step: step of the training.
            size: number of examples.
        """

    def _rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step))

    def _person(self, rng: np.random.Generator) -> Person:
        return self._people[int(rng.choice(len(self._people), p=self._shares))]
