"""Batches for the prior of `headpose`: drawn faces of all people, in changing colours, with key pictures of other moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.face_identity import identity_from_arrays, model_of_identity
from services.common.identity_drawing import IdentityDrawing
from services.common.morphable_models import MorphableModels
from services.common.mouth_bank import MouthBank
from services.common.tensor_bytes import decode_arrays
from services.render.adapt.headpose_pairs import DrawnView, drawn_pair
from services.render.adapt.pairs import LandmarkNoise, window_rows
from services.render.drawn_face import DRAWN_WINDOW
from services.render.key_pictures import KeyPictures, choose_keys, grey_keys
from services.render.train.footage import Person, colour_mixing, colour_table, person_shares, recolour
from services.render.types import UInt8

_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04
_STILL_SHARE: Final = 0.3
_DETAILED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """What draws one person.

    Attributes:
        film: from many frames.
        still: from a single one.
    """

    film: IdentityDrawing
    still: IdentityDrawing


def read_drawings(folder: Path, name: str) -> Drawings:
    """The drawings of a person, from identities that services.face.train.identities wrote.

    Raises:
        FileNotFoundError: there are none of this name.
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
    """Pairs of a step.

    Attributes:
        pictures: uint8 [B, 160, 160, PICTURE_CHANNELS].
        targets: uint8 [B, 160, 160, 3].
        others: uint8 [B, 160, 160, 3], another moment of the same person in the same colours: whose identity feature the generator
            is given. The target's own would tell it what it shall draw.
    """

    pictures: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.uint8]
    others: npt.NDArray[np.uint8]


class DrawnSource:
    """Draws batches from people, each as often as its share says."""

    def __init__(self, people: Sequence[Person], drawings: Mapping[str, Drawings], *, sharp_share: float, seed: int) -> None:
        self._people = people
        self._drawings = drawings
        self._shares = person_shares(people, sharp_share)
        self._noise = LandmarkNoise()
        self._seed = seed

    def batch(self, step: int, size: int) -> DrawnBatch:
        """The batch of a step: the same for the same seed and step, so that a resumed training goes on as it would have."""
        rng = np.random.default_rng((self._seed, step))
        drawn = [self._example(rng) for _ in range(size)]
        pictures, targets, others = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return DrawnBatch(pictures, targets, others)

    def _example(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], ...]:
        person = self._people[int(rng.choice(len(self._people), p=self._shares))]
        bank, drawings = person.bank, self._drawings[person.name]
        row = int(rng.integers(bank.num_frames))
        # None of the actor's key pictures may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        kind = rng.random()
        is_still = kind < _GREY_SHARE + _STILL_SHARE
        keys = grey_keys() if kind < _GREY_SHARE else _some_keys(bank, far, 1 if is_still else int(rng.choice(_CANDIDATES)), rng)
        table, mixing, mirror = colour_table(rng), colour_mixing(rng), rng.random() < 0.5

        def paint(picture: UInt8) -> UInt8:
            return recolour(picture, table, mixing)

        rows = window_rows(bank.frame_index, row, DRAWN_WINDOW)
        boxes = np.stack([paint(bank.boxes[place]) for place in rows])
        if keys.landmarks.any():
            keys = KeyPictures(np.stack([paint(picture) for picture in keys.pictures]), keys.landmarks)
        view = DrawnView(
            rows=rows,
            boxes=boxes,
            keys=keys,
            drawing=drawings.still if is_still else drawings.film,
            detailed=is_still or rng.random() < _DETAILED_SHARE,
            paint=paint,
        )
        pair = drawn_pair(bank, view, self._noise, int(rng.integers(1 << 31)))
        other = paint(bank.boxes[int(rng.choice(far)) if len(far) else row])
        parts = (pair.picture, pair.target, other)
        return tuple(part[:, ::-1] for part in parts) if mirror else parts


def _some_keys(bank: MouthBank, far: npt.NDArray[np.intp], count: int, rng: np.random.Generator) -> KeyPictures:
    return choose_keys(bank, np.sort(rng.choice(far, count))) if len(far) else grey_keys()
