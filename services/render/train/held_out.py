"""Self-re-enactment with the truth's landmarks: a bank from the first part of a clip, frames to draw from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequest
from services.common.face.mouth_bank import MAX_BANK_FRAMES, MouthBank, make_bank
from services.render.pairs import BASE, MASK, NEAREST_FRAMES, Pair
from services.render.train.metrics import Quality, frame_quality, mean_quality
from services.render.train.people import Stretch, read_bank
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet

_ENROLMENT_SHARE: Final = 0.6
_MAX_BANK_FRAMES: Final = 300

Draw = Callable[[Sequence[Pair]], Float32]
"""Returns drawn faces, float32 [N, 160, 160, 3], grey levels, for pairs."""


class Clip(NamedTuple):
    """Clip of a training set that is not trained on.

    Attributes:
        data: the training set.
        row: the clip.
    """

    data: TrainSet
    row: ClipRow


def clips_named(folder: Path, names: Sequence[str]) -> list[Clip]:
    """Return clips of a training set by the names of their rows.

    Args:
        folder: folder of the training set.
        names: the names.

    Raises:
        InvalidRequest: the folder holds no training set, or the set has no clip of a name with a face.
    """
    data = TrainSet(folder)
    rows = {row.name: row for row in data.rows if row.usable_frames}
    for name in names:
        if name not in rows:
            raise InvalidRequest(
                f"{folder} has no clip {name[:80]!r} with a face: the names stand in the manifest, in the field `name`",
                field="clip",
            )
    return [Clip(data, rows[name]) for name in names]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Clip with frames to draw.

    Attributes:
        name: name of the clip.
        bank: the enrolment part of the clip.
        pairs: frames of the rest.
        landmarks: float32 [N, 59, 2], landmarks of these frames, box pixels.
    """

    name: str
    bank: MouthBank
    pairs: tuple[Pair, ...]
    landmarks: Float32

    def first(self, count: int) -> HeldOut:
        """Return the clip with its first `count` pairs only; 0: all pairs."""
        end = count or len(self.pairs)
        return HeldOut(self.name, self.bank, self.pairs[:end], self.landmarks[:end])


class TwoParts(NamedTuple):
    """Clip that is cut in two.

    Attributes:
        whole: all frames, at most MAX_BANK_FRAMES.
        bank: the enrolment part, the first rows of `whole`.
        rows: intp [N], rows of `whole` behind the enrolment part that are to be drawn.
    """

    whole: MouthBank
    bank: MouthBank
    rows: npt.NDArray[np.intp]


def held_out(clip: Clip, num_frames: int, pair: Callable[[TwoParts, int], Pair]) -> HeldOut:
    """Return a clip, cut in two, with pairs of the second part.

    Args:
        clip: the clip.
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        pair: returns the pair of a row of `TwoParts.whole`.
    """
    parts = cut_in_two(clip, num_frames)
    made = (pair(parts, int(row)) for row in parts.rows)
    # Copies, so that no pair keeps the pictures of the whole clip in memory.
    pairs = tuple(Pair(each.picture, each.target.copy()) for each in made)
    return HeldOut(clip.row.name, parts.bank, pairs, parts.whole.box_landmarks[parts.rows])


def cut_in_two(clip: Clip, num_frames: int) -> TwoParts:
    """Return the enrolment part of a clip and the rows of the rest to draw; see `held_out`."""
    whole = read_bank(clip.data, [Stretch(clip.row, 0, min(clip.row.usable_frames, MAX_BANK_FRAMES))])
    end = max(1, min(int(whole.num_frames * _ENROLMENT_SHARE), _MAX_BANK_FRAMES))
    # Copies, so that the bank does not keep the pictures of the whole clip in memory.
    bank = make_bank(whole.boxes[:end].copy(), whole.mouth[:end], whole.rotation[:end], whole.frame_index[:end], whole.geometry)
    last = whole.num_frames - 1
    first = min(end + NEAREST_FRAMES, last)
    spread = np.linspace(first, last, num_frames) if num_frames else np.arange(first, last + 1)
    return TwoParts(whole, bank, np.unique(spread.round().astype(np.intp)))


def blended(pair: Pair, drawn: Float32) -> UInt8:
    """Return a drawn face, blended into the pair's footage by the soft mask: uint8 [160, 160, 3].

    Args:
        pair: mask and footage.
        drawn: float32 [160, 160, 3], grey levels.
    """
    weight = pair.picture[..., MASK : MASK + 1].astype(np.float32) / 255.0
    mixed = weight * np.clip(drawn, 0, 255) + (1.0 - weight) * pair.target
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def base_pictures(pairs: Sequence[Pair]) -> Float32:
    """Return the pictures that a network starts from, float32 [N, 160, 160, 3]: these the network has to improve."""
    return np.stack([pair.picture[..., BASE] for pair in pairs]).astype(np.float32)


def measure(clip: HeldOut, draw: Draw) -> Quality:
    """Return mean figures over the clip's frames."""
    drawn = draw(clip.pairs)
    return mean_quality(
        [
            frame_quality(blended(pair, picture), pair.target, points)
            for pair, picture, points in zip(clip.pairs, drawn, clip.landmarks, strict=True)
        ]
    )
