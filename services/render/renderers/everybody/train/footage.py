"""Batches for the prior of `everybody`: windows of all people, in changing colours, with key pictures of other moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import choose_keys, grey_keys
from services.render.pairs import window_rows
from services.render.renderers.everybody.inputs import WINDOW_FRAMES
from services.render.renderers.everybody.pairs import WindowView, window_pair
from services.render.train.colours import random_colours
from services.render.train.footage import Source

_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class WindowBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, WINDOW_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        past: uint8 [B, 160, 160, 18], frames t-6 to t-1 of the footage, for the discriminator of windows.
    """

    pictures: UInt8
    targets: UInt8
    past: UInt8


class WindowSource(Source[WindowBatch]):
    """Draws batches from people, each person as often as their share says."""

    def batch(self, step: int, index: int, size: int) -> WindowBatch:
        """See Source.batch."""
        rng = self._rng(step, index)
        drawn = [self._example(rng, self.people.draw(rng, step).bank) for _ in range(size)]
        return WindowBatch(*(np.stack(parts) for parts in zip(*drawn, strict=True)))

    def _example(self, rng: np.random.Generator, bank: MouthBank) -> tuple[UInt8, ...]:
        row = int(rng.integers(bank.num_frames))
        # No key picture of the actor may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        keys = grey_keys()
        if len(far) and rng.random() >= _GREY_SHARE:
            keys = choose_keys(bank, np.sort(rng.choice(far, int(rng.choice(_CANDIDATES)))))
        colours, mirror = random_colours(rng), rng.random() < 0.5
        rows = window_rows(bank.frame_index, row, WINDOW_FRAMES)
        boxes = np.stack([colours.of(bank.boxes[place]) for place in rows])
        view = WindowView(rows, boxes, colours.of_keys(keys))
        pair = window_pair(bank, view, self._noise, int(rng.integers(1 << 31)))
        parts = (pair.picture, pair.target, np.dstack(list(boxes[:-1])))
        return tuple(part[:, ::-1] for part in parts) if mirror else parts
