"""Batches for the prior of `headpose`: drawn faces of all people, in changing colours, with key pictures of other moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import UInt8
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import MouthBank
from services.common.store.tensor_bytes import decode_arrays
from services.render.key_pictures import KeyPictures, choose_keys, grey_keys
from services.render.pairs import window_rows
from services.render.renderers.headpose.inputs import DRAWN_WINDOW
from services.render.renderers.headpose.pairs import DrawnView, drawn_pair
from services.render.train.colours import random_colours
from services.render.train.footage import Person, Source

_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04
_STILL_SHARE: Final = 0.3
_DETAILED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Two drawings of one person.

    Attributes:
        film: drawing fitted on many frames.
        still: drawing fitted on a single frame.
    """

    film: IdentityDrawing
    still: IdentityDrawing


def read_drawings(folder: Path, name: str) -> Drawings:
    """Return the drawings of a person, from identities that services.face.train.identities wrote.

    Args:
        folder: folder of the identities.
        name: name of the person or of the clip.

    Raises:
        FileNotFoundError: the folder holds no identity of this name.
        InvalidRequest: a file holds something else.
    """
    models = MorphableModels()

    def read(file: str) -> IdentityDrawing:
        stored = decode_arrays((folder / file).read_bytes())
        model = models.get(model_of_identity(stored))
        return IdentityDrawing(identity_from_arrays(stored, model), model)

    return Drawings(read(f"{name}.safetensors"), read(f"{name}.still.safetensors"))


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBatch:
    """Examples of a step.

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
        drawings: drawings of the people, by name.
        sharp_share: share of the examples that comes from sharp footage.
        seed: random seed.
    """

    def __init__(self, people: Sequence[Person], drawings: Mapping[str, Drawings], *, sharp_share: float, seed: int) -> None:
        super().__init__(people, sharp_share=sharp_share, seed=seed)
        self._drawings = drawings

    def batch(self, step: int, size: int) -> DrawnBatch:
        """See Source.batch."""
        rng = self._rng(step)
        drawn = [self._example(rng) for _ in range(size)]
        return DrawnBatch(*(np.stack(parts) for parts in zip(*drawn, strict=True)))

    def _example(self, rng: np.random.Generator) -> tuple[UInt8, ...]:
        person = self._person(rng)
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
