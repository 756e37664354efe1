"""Banks of a training set's speakers: which clips, or parts of clips, make one bank, and the reading of a bank."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import BOX_SIZE, HeadPose, to_head_space
from services.common.face.mouth_bank import MouthBank, make_bank
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet, by_speaker

BANK_FRAMES: Final = 375
"""Most frames of a bank: as many as five clips of three seconds. An actor's bank in serving has 300."""
_GAP: Final = 1000
"""Distance of the first frames of two parts in a bank. Larger than a part, so no window crosses from one part into another."""
_NAMES: Final = ("landmarks", "scale", "rotation", "translation", "mouth_landmarks", "usable")


@dataclass(frozen=True, slots=True)
class Part:
    """Frames `begin` to `end` - 1 of a clip."""

    row: ClipRow
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class BankPlan:
    """Parts of one speaker's clips that make one bank.

    Attributes:
        parts: the parts, at least one.
    """

    parts: tuple[Part, ...]

    @property
    def rows(self) -> tuple[ClipRow, ...]:
        """Rows of the clips."""
        return tuple(part.row for part in self.parts)

    @property
    def weight(self) -> float:
        """How often the bank is drawn, relative to the speaker's other banks: the mean weight of its clips."""
        return sum(row.weight for row in self.rows) / len(self.parts)


def plan_banks(rows: Iterable[ClipRow], *, least_frames: int) -> dict[str, list[BankPlan]]:
    """Return the banks of each speaker. Speakers without a bank are left out.

    Short clips of a speaker share a bank, and long clips are divided, so that every bank has at most BANK_FRAMES frames.

    Args:
        rows: clips with a face. Clips of weight 0 are left out.
        least_frames: least number of usable frames of a bank.
    """
    plans: dict[str, list[BankPlan]] = {}
    for speaker, clips in by_speaker(row for row in rows if row.weight > 0).items():
        banks: list[list[Part]] = [[]]
        for part in (part for row in clips for part in _parts(row)):
            if sum(each.end - each.begin for each in banks[-1]) + part.end - part.begin > BANK_FRAMES:
                banks.append([])
            banks[-1].append(part)
        usable = [BankPlan(tuple(parts)) for parts in banks if sum(map(_usable, parts)) >= least_frames]
        if usable:
            plans[speaker] = usable
    return plans


def read_bank(data: TrainSet, plan: BankPlan) -> MouthBank:
    """Return a bank without textures: training needs only points.

    Raises:
        InvalidRequest: a file of the training set is missing or damaged, or the clips have no usable frame.
    """
    anchors: list[Float32] = []
    mouth, rotation, index = [], [], []
    for number, part in enumerate(plan.parts):
        arrays = data.arrays(part.row, "track", _NAMES)
        usable = part.begin + np.flatnonzero(arrays["usable"][part.begin : part.end])
        landmarks = arrays["landmarks"][usable][:, list(ANCHORS)]
        turns, shifts = arrays["rotation"][usable], arrays["translation"][usable]
        poses = map(HeadPose, arrays["scale"][usable].tolist(), turns, shifts)
        anchors.extend(to_head_space(points, pose) for points, pose in zip(landmarks, poses, strict=True))
        mouth.append(arrays["mouth_landmarks"][usable])
        rotation.append(turns)
        index.append(number * _GAP + usable - part.begin)
    if not anchors:
        names = ", ".join(row.name for row in plan.rows)
        raise InvalidRequest(f"{data.folder}: {names}: no usable frame, which contradicts the manifest", field="data")
    all_mouth = np.concatenate(mouth)
    return make_bank(
        np.zeros((len(all_mouth), 0, BOX_SIZE, 3), np.uint8),
        all_mouth,
        np.concatenate(rotation),
        np.concatenate(index),
        measure_geometry(all_mouth, np.stack(anchors)),
    )


def _parts(row: ClipRow) -> list[Part]:
    """Return the parts of a clip: one, or for a long clip as few as possible of nearly equal length."""
    if not row.usable_frames:
        return []
    count = math.ceil(row.frames / BANK_FRAMES)
    bounds = [round(place) for place in np.linspace(0, row.frames, count + 1)]
    return [Part(row, begin, end) for begin, end in pairwise(bounds)]


def _usable(part: Part) -> float:
    return part.row.usable_frames * (part.end - part.begin) / part.row.frames
