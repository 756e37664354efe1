"""Batches for the prior of `ugc`: frames of all people, in changing colours, with textures of other moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import BASE, MASK, NEAREST_FRAMES, Pair, perturbed
from services.render.renderers.ugc.pairs import choose_sources, make_pair
from services.render.train.colours import random_colours
from services.render.train.footage import Source

_CANDIDATES: Final = (4, 30, 150)


@dataclass(frozen=True, slots=True, eq=False)
class UgcBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, 9], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        num_sequence: the first `num_sequence` examples are consecutive frames of one clip.
    """

    pictures: UInt8
    targets: UInt8
    num_sequence: int


class UgcSource(Source[UgcBatch]):
    """Draws batches from people, each person as often as their share says."""

    def batch(self, step: int, index: int, size: int) -> UgcBatch:
        """See Source.batch."""
        return self.batch_with_sequence(step, index, size, 0)

    def batch_with_sequence(self, step: int, index: int, num_single: int, num_sequence: int) -> UgcBatch:
        """Return a batch of consecutive frames and single examples, always the same for the same seed, step and index.

        Args:
            step: step of the training.
            index: number of the batch within the step.
            num_single: number of single examples.
            num_sequence: number of consecutive frames of one clip.
        """
        rng = self._rng(step, index)
        pairs: list[Pair] = []
        if num_sequence:
            bank = self.people.draw(rng, step).bank
            first = int(rng.choice(_starts(bank, num_sequence)))
            pairs += self._augmented(bank, range(first, first + num_sequence), rng)
        for _ in range(num_single):
            bank = self.people.draw(rng, step).bank
            pairs += self._augmented(bank, [int(rng.integers(bank.num_frames))], rng)
        pictures, targets = np.stack([pair.picture for pair in pairs]), np.stack([pair.target for pair in pairs])
        return UgcBatch(pictures, targets, num_sequence)

    def _augmented(self, bank: MouthBank, rows: Sequence[int], rng: np.random.Generator) -> list[Pair]:
        # All frames of a sequence share one draw: colours and mirror must not flicker, and all choose from the same candidates.
        away = np.abs(bank.frame_index[:, None] - bank.frame_index[list(rows)]).min(axis=1)
        # Of a person with one short clip, nearer frames must serve too.
        far = away > min(2 * len(rows) + NEAREST_FRAMES, max(NEAREST_FRAMES, float(np.median(away))))
        allowed = rng.choice(np.flatnonzero(far), int(rng.choice(_CANDIDATES)))
        num_blended = int(rng.integers(1, 4))
        colours, mirror = random_colours(rng), rng.random() < 0.5
        pairs = []
        for row in rows:
            sources = choose_sources(bank, row, allowed, num_blended)
            pair = make_pair(bank, row, sources, perturbed(bank.mouth[row], self._noise, rng))
            background, texture = colours.of(pair.picture[..., :3]), colours.of(pair.picture[..., BASE])
            background[pair.picture[..., MASK] > 0] = 0
            picture = np.dstack([background, texture, pair.picture[..., MASK:]])
            target = colours.of(pair.target)
            if mirror:
                picture, target = picture[:, ::-1], target[:, ::-1]
            pairs.append(Pair(picture, target))
        return pairs


def _starts(bank: MouthBank, length: int) -> list[int]:
    """Return rows at which `length` consecutive frames begin; of footage with many gaps, rows with frames across a gap."""
    last = bank.num_frames - length + 1
    spans = bank.frame_index[length - 1 :] - bank.frame_index[:last]
    starts: list[int] = np.flatnonzero(spans == length - 1).tolist()
    return starts or list(range(last))
