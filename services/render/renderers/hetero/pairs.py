"""Training pairs of `hetero` from a bank: a window of composites with a reference picture, and the middle frame as filmed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.array_types import Int64, UInt8
from services.common.chassis.calls import check_still_wanted
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, spread_rows, wanted_mouth
from services.render.renderers.hetero.inputs import REACH, composite, window_picture


@dataclass(frozen=True, slots=True, eq=False)
class CompositeView:
    """Window of footage as the network sees the window: as filmed, or in other colours.

    Attributes:
        rows: rows of the bank, frames t-2 to t+2.
        boxes: uint8 [5, 160, 160, 3], render boxes of these frames.
        reference: uint8 [160, 160, 3], the reference picture, in the same colours.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    reference: UInt8


def rows_around(frame_index: Int64, row: int) -> tuple[int, ...]:
    """Return the rows of frames t-2 to t+2.

    Where the footage begins, ends or has a gap, the nearest frame stands in for the missing frames.

    Args:
        frame_index: int64 [F], place of each row in the footage.
        row: row of frame t.
    """
    first = last = row
    while first > 0 and row - first < REACH and frame_index[first] - frame_index[first - 1] == 1:
        first -= 1
    while last + 1 < len(frame_index) and last - row < REACH and frame_index[last + 1] - frame_index[last] == 1:
        last += 1
    return tuple(min(max(place, first), last) for place in range(row - REACH, row + REACH + 1))


def composite_pair(bank: MouthBank, view: CompositeView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's middle frame.

    Args:
        bank: landmarks and poses of the person.
        view: the window.
        noise: strength of the noise on the wanted landmarks. All five frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    middle = view.boxes[REACH]
    asked = [wanted_mouth(bank, row, noise, seed) for row in view.rows]
    window = [composite(box, wanted.mask, wanted.points) for box, wanted in zip(view.boxes, asked, strict=True)]
    return Pair(window_picture(window, middle, asked[REACH].mask, asked[REACH].points, view.reference), middle)


def actor_pairs(bank: MouthBank, references: npt.NDArray[np.intp], count: int, seed: int) -> list[Pair]:
    """Return pairs of the bank's frames, evenly spread, each with a reference picture of another moment.

    Where the served reference picture is far enough, every second pair has it. The others have the other pictures in turn.

    Args:
        bank: pictures and landmarks of the person.
        references: int [N], rows of the reference pictures, the served one first.
        count: largest number of pairs.
        seed: random seed of the noise.

    Raises:
        Cancelled: the call that this is done for is over.
    """
    rng = np.random.default_rng((seed, 0))
    far = np.abs(bank.frame_index[:, None] - bank.frame_index[references]) > NEAREST_FRAMES
    reachable = np.flatnonzero(far.any(axis=1))
    pairs: list[Pair] = []
    for row in spread_rows(reachable, count) if len(reachable) else ():
        check_still_wanted()
        allowed, number = references[far[row]], len(pairs)
        reference = allowed[0 if number % 2 == 0 else number // 2 % len(allowed)]
        rows = rows_around(bank.frame_index, int(row))
        view = CompositeView(rows, bank.boxes[list(rows)], bank.boxes[reference])
        pairs.append(composite_pair(bank, view, LandmarkNoise(), int(rng.integers(1 << 31))))
    return pairs
