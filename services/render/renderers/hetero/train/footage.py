"""Batches for the prior of `hetero`: windows of all people with reference pictures of other moments, in changing colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.landmarks import mouth_opening
from services.common.face.lip_pictures import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import Pair
from services.render.renderers.hetero.pairs import CompositeView, composite_pair, rows_around
from services.render.train.colours import random_colours
from services.render.train.footage import Source
from services.render.train.people import People

_FAR_FRAMES: Final = 12
_WIDE_SHARE: Final = 0.5
_WIDE: Final = 0.3
_MADE_UP_SHARE: Final = 0.5
_MAKE_UP_SPREAD: Final = 0.3
_SOFT_EDGE_PX: Final = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class CompositeBatch:
    """Examples of a pass. The frames of a sequence follow each other.

    Attributes:
        pictures: uint8 [B, 160, 160, NUM_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
    """

    pictures: UInt8
    targets: UInt8


class CompositeSource(Source[CompositeBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        seed: random seed.
        sequences_from: step from which on examples are sequences of consecutive frames. Before, they are single frames.
        length: frames of a sequence.
    """

    def __init__(self, people: People, *, seed: int, sequences_from: int, length: int) -> None:
        super().__init__(people, seed=seed)
        self._sequences_from, self._length = sequences_from, length

    def batch(self, step: int, index: int, size: int) -> CompositeBatch:
        """See Source.batch. `size` counts sequences."""
        rng = self._rng(step, index)
        length = self._length if step >= self._sequences_from else 1
        pairs = [pair for _ in range(size) for pair in self._example(rng, self.people.draw(rng, step).bank, length)]
        return CompositeBatch(np.stack([pair.picture for pair in pairs]), np.stack([pair.target for pair in pairs]))

    def _example(self, rng: np.random.Generator, bank: MouthBank, length: int) -> list[Pair]:
        first = random_row(bank, rng)
        run = [first]
        for row in range(first + 1, first + length):
            # At a cut the last frame stands still.
            follows = row < bank.num_frames and bank.frame_index[row] - bank.frame_index[first] == row - first
            run.append(row if follows else run[-1])
        # A reference picture of the moment itself would hold the answer.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[first]) > _FAR_FRAMES + length)
        colours, mirror, lips = random_colours(rng), rng.random() < 0.5, random_lips(rng)

        def box(row: int) -> UInt8:
            return made_up(colours.of(bank.boxes[row]), bank.box_landmarks[row], lips)

        reference = box(int(rng.choice(far)) if len(far) else first)
        seed = int(rng.integers(1 << 31))
        made = []
        for row in run:
            rows = rows_around(bank.frame_index, row)
            view = CompositeView(rows, np.stack([box(place) for place in rows]), reference)
            pair = composite_pair(bank, view, self._noise, seed)
            made.append(Pair(pair.picture[:, ::-1], pair.target[:, ::-1]) if mirror else pair)
        return made


def random_row(bank: MouthBank, rng: np.random.Generator) -> int:
    """Return a random row of a bank. Half of the rows come from the 30 % of the frames with the widest mouths.

    Most frames of speech show a mouth that is nearly shut. From these frames alone, a few hundred steps do not teach what is inside
    a mouth.
    """
    if rng.random() >= _WIDE_SHARE:
        return int(rng.integers(bank.num_frames))
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    return int(rng.choice(order[-max(1, int(_WIDE * len(order))) :]))


def random_lips(rng: np.random.Generator) -> Float32:
    """Return a gain for each colour channel of the lips, float32 [3]; ones for half of the examples.

    Nineteen people have few colours of lips. With random ones, the network has to take the colour from the reference picture.
    """
    gain = np.exp(rng.normal(-_MAKE_UP_SPREAD / 2, _MAKE_UP_SPREAD, 3))
    return (gain if rng.random() < _MADE_UP_SHARE else np.ones(3)).astype(np.float32)


def made_up(box: UInt8, box_landmarks: Float32, gain: Float32) -> UInt8:
    """Return a render box with coloured lips: uint8 [160, 160, 3].

    Args:
        box: uint8 [160, 160, 3].
        box_landmarks: float32 [59, 2], tracked landmarks, box pixels.
        gain: float32 [3], factor for each colour channel.
    """
    if (gain == 1.0).all():
        return box
    outer, inside = np.moveaxis(lip_pictures(box_landmarks), 2, 0)
    lips = cv2.GaussianBlur(cv2.subtract(outer, inside), (0, 0), _SOFT_EDGE_PX).astype(np.float32)[..., None] / 255.0
    return np.asarray(np.clip(np.rint(box * (1.0 + lips * (gain - 1.0))), 0, 255), dtype=np.uint8)
