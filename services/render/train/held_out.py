"""Self-re-enactment with the truth's landmarks: a bank from the first part of a clip, frames to make from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.mouth_bank import MouthBank, make_bank
from services.render.adapt.pairs import NEAREST_FRAMES, Pair, choose_sources, make_pair
from services.render.train.footage import read_people
from services.render.train.metrics import Quality, frame_quality, mean_quality

_ENROLMENT_SHARE: Final = 0.6
_MAX_BANK_FRAMES: Final = 300
_BLENDED: Final = 3

Draw = Callable[[Sequence[Pair]], npt.NDArray[np.float32]]
"""Pairs to drawn faces, float32 [N, 160, 160, 3], grey levels."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """One clip.

    Attributes:
        name: part of the clip's file name.
        bank: its enrolment part.
        pairs: frames of the rest, each with the texture warped from the bank to its own landmarks.
        landmarks: float32 [N, 59, 2] of these frames, box pixels.
    """

    name: str
    bank: MouthBank
    pairs: tuple[Pair, ...]
    landmarks: npt.NDArray[np.float32]


class TwoParts(NamedTuple):
    """A clip that is cut.

    Attributes:
        whole: all of it.
        bank: the enrolment part, its first rows.
        rows: intp [N], of `whole` behind the enrolment part.
    """

    whole: MouthBank
    bank: MouthBank
    rows: npt.NDArray[np.intp]


def read_held_out(folder: Path, name: str, *, use: str, num_frames: int) -> HeldOut:
    """A clip of a training set that is not trained on, cut in two.

    Args:
        folder: of the training set.
        name: part of the clip's file name.
        use: of the clip in the training set's metadata.
        num_frames: frames to make, evenly spread; 0: all of the second part, one after the other.
    """
    whole, bank, rows = cut_in_two(folder, name, use=use, num_frames=num_frames)
    enrolled = np.arange(bank.num_frames)
    pairs = tuple(make_pair(whole, int(row), choose_sources(whole, int(row), enrolled, _BLENDED), whole.mouth[row]) for row in rows)
    return HeldOut(name, bank, pairs, whole.box_landmarks[rows])


def cut_in_two(folder: Path, name: str, *, use: str, num_frames: int) -> TwoParts:
    """A clip's enrolment part, and the rows to make of the rest; arguments as `read_held_out`."""
    whole = read_people(folder, use=use, max_clips=1, sharp_marks=(), only=(name,))[0].bank
    end = min(int(whole.num_frames * _ENROLMENT_SHARE), _MAX_BANK_FRAMES)
    bank = make_bank(whole.boxes[:end], whole.mouth[:end], whole.rotation[:end], whole.frame_index[:end], whole.geometry)
    first, last = end + NEAREST_FRAMES, whole.num_frames - 1
    spread = np.linspace(first, last, num_frames) if num_frames else np.arange(first, last + 1)
    return TwoParts(whole, bank, np.unique(spread.round().astype(np.intp)))


def blended(pair: Pair, drawn: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A drawn face, grey levels [160, 160, 3], blended into its footage by the soft mask: uint8 [160, 160, 3]."""
    weight = pair.picture[..., 6:7].astype(np.float32) / 255.0
    mixed = weight * np.clip(drawn, 0, 255) + (1.0 - weight) * pair.target
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def textures(pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
    """The warped textures alone: what the refine network has to improve."""
    return np.stack([pair.picture[..., 3:6] for pair in pairs]).astype(np.float32)


def measure(clip: HeldOut, draw: Draw) -> Quality:
    """Mean figures over the clip's frames."""
    drawn = draw(clip.pairs)
    return mean_quality(
        [
            frame_quality(blended(pair, picture), pair.target, points)
            for pair, picture, points in zip(clip.pairs, drawn, clip.landmarks, strict=True)
        ]
    )
