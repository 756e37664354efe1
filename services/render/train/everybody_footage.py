"""Batches for the prior of `everybody`: windows of all people, in changing colours, with key pictures of other moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.render.adapt.everybody_pairs import WindowView, window_pair
from services.render.adapt.pairs import LandmarkNoise, window_rows
from services.render.heatmaps import WINDOW_FRAMES
from services.render.key_pictures import KeyPictures, choose_keys, grey_keys
from services.render.train.footage import Person, colour_mixing, colour_table, person_shares, recolour

_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class WindowBatch:
    """Pairs of a step.

    Attributes:
        pictures: uint8 [B, 160, 160, WINDOW_CHANNELS].
        targets: uint8 [B, 160, 160, 3].
        past: uint8 [B, 160, 160, 18], the footage's frames t-6 to t-1, for the discriminator of windows.
    """

    pictures: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.uint8]
    past: npt.NDArray[np.uint8]


class WindowSource:
    """Draws batches from people, each as often as its share says."""

    def __init__(self, people: Sequence[Person], *, sharp_share: float, seed: int) -> None:
        self._people = people
        self._shares = person_shares(people, sharp_share)
        self._noise = LandmarkNoise()
        self._seed = seed

    def batch(self, step: int, size: int) -> WindowBatch:
        """The batch of a step: the same for the same seed and step, so that a resumed training goes on as it would have."""
        rng = np.random.default_rng((self._seed, step))
        drawn = [self._example(rng) for _ in range(size)]
        pictures, targets, past = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return WindowBatch(pictures, targets, past)

    def _example(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], ...]:
        bank = self._people[int(rng.choice(len(self._people), p=self._shares))].bank
        row = int(rng.integers(bank.num_frames))
        # None of the actor's key pictures may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        keys = grey_keys()
        if len(far) and rng.random() >= _GREY_SHARE:
            keys = choose_keys(bank, np.sort(rng.choice(far, int(rng.choice(_CANDIDATES)))))
        table, mixing, mirror = colour_table(rng), colour_mixing(rng), rng.random() < 0.5
        rows = window_rows(bank.frame_index, row, WINDOW_FRAMES)
        boxes = np.stack([recolour(bank.boxes[place], table, mixing) for place in rows])
        if keys.landmarks.any():
            keys = KeyPictures(np.stack([recolour(picture, table, mixing) for picture in keys.pictures]), keys.landmarks)
        pair = window_pair(bank, WindowView(rows, boxes, keys), self._noise, int(rng.integers(1 << 31)))
        parts = (pair.picture, pair.target, np.dstack(list(boxes[:-1])))
        return tuple(part[:, ::-1] for part in parts) if mirror else parts
