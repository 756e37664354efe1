"""Training footage of the renderer: tracked clips grouped by person, and balanced, augmented batches of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from services.common.actor_geometry import ANCHORS, measure_geometry
from services.common.crops import HeadPose, to_head_space
from services.common.mouth_bank import MouthBank, make_bank
from services.render.adapt.pairs import LandmarkNoise, Pair, choose_sources, make_pair, perturbed

_CLIP_STRIDE: Final = 100_000
"""Added to the frame index from clip to clip of one person, so that no window runs over a cut."""
_CANDIDATES: Final = (4, 30, 150)


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """All usable frames of one person.

    Attributes:
        name: from the clips' metadata.
        bank: their frames.
        sharp: whether the footage has at least the resolution of the render box.
    """

    name: str
    bank: MouthBank
    sharp: bool


def read_people(folder: Path, *, use: str, max_clips: int, sharp_marks: Sequence[str], only: Sequence[str] = ()) -> list[Person]:
    """The clips of a training set, grouped by person.

    Args:
        folder: of `*.safetensors`, as the face stage's training-set command writes them.
        use: train, val or dev.
        max_clips: of one person; the first ones by name.
        sharp_marks: parts of clip names that mark footage of full resolution; such clips form a person of their own.
        only: parts of clip names to take; all where empty.

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
        raise ValueError(f"no clip with use={use} and render boxes in {folder}")
    return [Person(name, _read_bank(paths[:max_clips]), sharp) for (name, sharp), paths in sorted(groups.items())]


def _read_bank(paths: Sequence[Path]) -> MouthBank:
    boxes, mouth, rotation, index = [], [], [], []
    anchors: list[npt.NDArray[np.float32]] = []
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


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs of a step.

    Attributes:
        pictures: uint8 [B, 160, 160, 9].
        targets: uint8 [B, 160, 160, 3].
        num_sequence: the first so many are consecutive frames of one clip.
    """

    pictures: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.uint8]
    num_sequence: int


def person_shares(people: Sequence[Person], sharp_share: float) -> npt.NDArray[np.float64]:
    """How often each person is drawn, sum 1: by the root of their frames, sharp footage as often as its share says."""
    sharp = np.array([person.sharp for person in people])
    frames = np.sqrt([person.bank.num_frames for person in people])
    shares = np.where(sharp, frames / max(frames[sharp].sum(), 1e-9) * sharp_share, 0.0)
    rest = 1.0 - shares.sum()
    soft = np.where(sharp, 0.0, frames)
    shares += soft / soft.sum() * rest if soft.any() else 0.0
    return np.asarray(shares / shares.sum(), dtype=np.float64)


class PairSource:
    """Draws batches from people, each as often as its share says."""

    def __init__(self, people: Sequence[Person], *, sharp_share: float, seed: int) -> None:
        self._people = people
        self._shares = person_shares(people, sharp_share)
        self._noise = LandmarkNoise()
        self._seed = seed

    def batch(self, step: int, *, num_sequence: int, num_single: int) -> Batch:
        """The batch of a step: the same for the same seed and step, so that a resumed training goes on as it would have."""
        rng = np.random.default_rng((self._seed, step))
        pairs: list[Pair] = []
        if num_sequence:
            bank = self._draw(rng).bank
            starts = np.flatnonzero(
                bank.frame_index[num_sequence - 1 :] - bank.frame_index[: bank.num_frames - num_sequence + 1] == num_sequence - 1
            )
            first = int(rng.choice(starts))
            pairs += self._augmented(bank, range(first, first + num_sequence), rng)
        for _ in range(num_single):
            bank = self._draw(rng).bank
            pairs += self._augmented(bank, [int(rng.integers(bank.num_frames))], rng)
        pictures, targets = np.stack([pair.picture for pair in pairs]), np.stack([pair.target for pair in pairs])
        return Batch(pictures, targets, num_sequence)

    def _draw(self, rng: np.random.Generator) -> Person:
        return self._people[int(rng.choice(len(self._people), p=self._shares))]

    def _augmented(self, bank: MouthBank, rows: Sequence[int], rng: np.random.Generator) -> list[Pair]:
        # One draw for all frames of a sequence: colours and mirror must not flicker, and all choose from the same candidates.
        far = np.abs(bank.frame_index[:, None] - bank.frame_index[list(rows)]).min(axis=1) > 2 * len(rows) + 10
        allowed = rng.choice(np.flatnonzero(far), int(rng.choice(_CANDIDATES)))
        num_blended = int(rng.integers(1, 4))
        table, mixing, mirror = colour_table(rng), colour_mixing(rng), rng.random() < 0.5
        pairs = []
        for row in rows:
            sources = choose_sources(bank, row, allowed, num_blended)
            pair = make_pair(bank, row, sources, perturbed(bank.mouth[row], self._noise, rng))
            background, texture = (recolour(pair.picture[..., at : at + 3], table, mixing) for at in (0, 3))
            background[pair.picture[..., 6] > 0] = 0
            picture = np.dstack([background, texture, pair.picture[..., 6:]])
            target = recolour(pair.target, table, mixing)
            if mirror:
                picture, target = picture[:, ::-1], target[:, ::-1]
            pairs.append(Pair(picture, target))
        return pairs


def colour_table(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random gamma and gain, as a table of levels: uint8 [256]."""
    gamma, gain = np.exp(rng.normal(0.0, 0.25)), np.exp(rng.normal(0.0, 0.12))
    levels = np.linspace(0.0, 1.0, 256) ** gamma * gain
    return np.asarray(np.clip(np.rint(levels * 255.0), 0, 255), dtype=np.uint8)


def colour_mixing(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Random saturation and white balance, float32 [3, 3]; rows sum to the channel's own gain."""
    saturation = np.exp(rng.normal(0.0, 0.25))
    mixing = saturation * np.eye(3) + (1.0 - saturation) * np.array([0.299, 0.587, 0.114])
    return np.asarray(np.exp(rng.normal(0.0, 0.06, 3))[:, None] * mixing, dtype=np.float32)


def recolour(
    picture: npt.NDArray[np.uint8], table: npt.NDArray[np.uint8], mixing: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """A picture in other colours: uint8 of the same shape."""
    mixed = cv2.transform(np.ascontiguousarray(picture), mixing)
    return np.asarray(cv2.LUT(mixed, table), dtype=np.uint8)
