"""Personalisation of `hetero`: a reference picture from the bank, then the fine-tuning phase (paper `hetero`, Sec. 3.3.2).

As in the paper, the embedder is fixed, and the phase sees only this person's footage. Departure: the paper trains all weights of
the generator; here the search of services.render.personalization moves the actor's state, which is an input of the generator:
scale and shift of all layers, and low-rank weights beside the gated convolutions. The appearance vector is the mean over several
reference pictures, as in Zakharov et al. 2019, on whom the paper's two phases are modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.common.array_types import Float32, Int64, UInt8
from services.common.face.mouth_bank import MouthBank
from services.common.server.call_context import check_not_cancelled
from services.render.losses import RenderLossWeights
from services.render.networks.weights import to_tensor
from services.render.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, spread_rows, target_mouth
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.network import WEIGHTS, Appearance, HeteroNetwork, load
from services.render.renderers.hetero.renderer import REACH, REFERENCE, choose_references, composite, packed, window_picture
from services.render.types import PersonalizeProgress

RECIPE: Final = PersonalizeRecipe(num_steps=100, learning_rate=5e-3, average_decay=0.95, weights=RenderLossWeights(frame=0.02))
"""Settings of the search: less than a minute on one core."""


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
        frame_index: int64 [F], index of each row in the footage.
        row: row of frame t.
    """
    first = last = row
    while first > 0 and row - first < REACH and frame_index[first] - frame_index[first - 1] == 1:
        first -= 1
    while last + 1 < len(frame_index) and last - row < REACH and frame_index[last + 1] - frame_index[last] == 1:
        last += 1
    return tuple(min(max(index, first), last) for index in range(row - REACH, row + REACH + 1))


def composite_pair(bank: MouthBank, view: CompositeView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's middle frame.

    Args:
        bank: landmarks and poses of the person.
        noise: strength of the noise on the target landmarks. All five frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    middle = view.boxes[REACH]
    asked = [target_mouth(bank, row, noise, seed) for row in view.rows]
    window = [composite(box, target.mask, target.points) for box, target in zip(view.boxes, asked, strict=True)]
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
        WorkCancelledError: the call that this is done for is over.
    """
    rng = np.random.default_rng((seed, 0))
    far = np.abs(bank.frame_index[:, None] - bank.frame_index[references]) > NEAREST_FRAMES
    reachable = np.flatnonzero(far.any(axis=1))
    pairs: list[Pair] = []
    for row in spread_rows(reachable, count) if len(reachable) else ():
        check_not_cancelled()
        allowed, number = references[far[row]], len(pairs)
        reference = allowed[0 if number % 2 == 0 else number // 2 % len(allowed)]
        rows = rows_around(bank.frame_index, int(row))
        view = CompositeView(rows, bank.boxes[list(rows)], bank.boxes[reference])
        pairs.append(composite_pair(bank, view, LandmarkNoise(), int(rng.integers(1 << 31))))
    return pairs


def personalize_hetero(job: PersonalizeJob, recipe: PersonalizeRecipe = RECIPE) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    A bank of a few frames, all near its reference pictures, has nothing to learn from: its state holds the reference picture with
    the prior's own numbers.

    Args:
        job: the bank, the prior's weights and settings. `train=False` skips the search.
        recipe: settings of the search.

    Errors: see `personalized`.
    """
    torch.set_num_threads(job.num_threads)
    network, bank = load(job.weights / WEIGHTS), job.bank
    rows = choose_references(bank)
    generator = FixedEmbedder(network, bank, rows)

    def actor_state(layers: Float32) -> Float32:
        return packed(np.concatenate([layers, generator.offset.numpy()]), bank.boxes[rows[0]])

    pairs = actor_pairs(bank, rows, recipe.num_pairs, job.seed) if job.train else []
    yield from personalized(generator, pairs, job, recipe, actor_state)


class FixedEmbedder(nn.Module):
    """Generator with one actor's mean appearance vector, float32 [D]. Its state is what fine-tuning moves of the actor's state.

    Args:
        network: the prior.
        bank: pictures of the person.
        rows: int [N], rows of the reference pictures, the served one first.
    """

    mean: Tensor

    def __init__(self, network: HeteroNetwork, bank: MouthBank, rows: npt.NDArray[np.intp]) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            vectors = network.embedder(to_tensor(bank.boxes[rows])).vector
        self.register_buffer("mean", vectors.mean(dim=0))
        self.offset = vectors.mean(dim=0) - vectors[0]
        """float32 [D], what is added to the served reference picture's vector."""

    def default_state(self) -> Tensor:
        """Return the prior's own numbers for the layers: zeros."""
        return torch.zeros(self.network.layers_size)

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the face minus the reference picture; see HeteroNetwork.translated."""
        with torch.no_grad():
            maps = self.network.embedder(pictures[:, REFERENCE]).maps
        return self.network.translated(pictures, state, Appearance(self.mean.expand(len(pictures), -1), maps))
