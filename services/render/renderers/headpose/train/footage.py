"""Batches for the prior of `headpose`: drawn faces of all people, in changing colours, with key pictures of other moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures, choose_keys, grey_keys
from services.render.pairs import window_rows
from services.render.renderers.headpose.inputs import DRAWN_WINDOW
from services.render.renderers.headpose.pairs import DrawnView, drawn_pair
from services.render.renderers.headpose.train.drawings import Drawings
from services.render.train.colours import random_colours
from services.render.train.footage import Source
from services.render.train.people import People, Person
from services.training.trainset.reader import BoundedCache

_DRAWINGS_KEPT: Final = 64
_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04
_STILL_SHARE: Final = 0.3
_DETAILED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, PICTURE_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        others: uint8 [B, 160, 160, 3], another moment of the same person in the same colours. The generator gets the identity
            feature of this moment, because the target's own feature would give the answer away.
    """

    pictures: UInt8
    targets: UInt8
    others: UInt8


class DrawnSource(Source[DrawnBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        drawings: returns the drawings of a person by name.
        seed: random seed.
    """

    def __init__(self, people: People, drawings: Callable[[str], Drawings], *, seed: int) -> None:
        super().__init__(people, seed=seed)
        # The size is counted in people. Threads that make batches ahead need the people of two pools.
        self._drawings = BoundedCache[str, Drawings](drawings, lambda _: 1, _DRAWINGS_KEPT)

    def batch(self, step: int, index: int, size: int) -> DrawnBatch:
        """See Source.batch."""
        rng = self._rng(step, index)
        drawn = [self._example(rng, self.people.draw(rng, step)) for _ in range(size)]
        return DrawnBatch(*(np.stack(parts) for parts in zip(*drawn, strict=True)))

    def _example(self, rng: np.random.Generator, person: Person) -> tuple[UInt8, ...]:
        bank, drawings = person.bank, self._drawings[person.name]
        row = int(rng.integers(bank.num_frames))
        # No key picture of the actor may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        kind = rng.random()
        is_still = kind < _GREY_SHARE + _STILL_SHARE
        keys = grey_keys() if kind < _GREY_SHARE else _some_keys(bank, far, 1 if is_still else int(rng.choice(_CANDIDATES)), rng)
        colours, mirror = random_colours(rng), rng.random() < 0.5
        rows = window_rows(bank.frame_index, row, DRAWN_WINDOW)
        view = DrawnView(
            rows=rows,
            boxes=np.stack([colours.of(bank.boxes[place]) for place in rows]),
            keys=colours.of_keys(keys),
            drawing=drawings.still if is_still else drawings.film,
            detailed=is_still or rng.random() < _DETAILED_SHARE,
            paint=colours.of,
        )
        pair = drawn_pair(bank, view, self._noise, int(rng.integers(1 << 31)))
        other = colours.of(bank.boxes[int(rng.choice(far)) if len(far) else row])
        parts = (pair.picture, pair.target, other)
        return tuple(part[:, ::-1] for part in parts) if mirror else parts


def _some_keys(bank: MouthBank, far: npt.NDArray[np.intp], count: int, rng: np.random.Generator) -> KeyPictures:
    return choose_keys(bank, np.sort(rng.choice(far, count))) if len(far) else grey_keys()
