"""Personalisation of `hetero`: a reference picture from the bank, then the fine-tuning phase (paper `hetero`, Sec. 3.3.2).

As in the paper, the embedder is fixed, and the phase sees this person's footage alone. Departure: the paper trains all weights of
the generator; here the search of services.render.personalization moves the actor's state, which is an input of the generator:
scale and shift of all layers, and low-rank weights beside the gated convolutions. The appearance vector is the mean over several
reference pictures, as in Zakharov et al. 2019, on whom the paper's two phases are modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.common.face.mouth_bank import MouthBank
from services.render.losses import LossWeights
from services.render.networks.tensors import to_tensor
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.inputs import REFERENCE
from services.render.renderers.hetero.network import WEIGHTS, Appearance, HeteroNetwork, load
from services.render.renderers.hetero.pairs import actor_pairs
from services.render.renderers.hetero.reference import choose_references, packed
from services.render.types import PersonalizeProgress

RECIPE: Final = PersonalizeRecipe(num_steps=100, learning_rate=5e-3, weights=LossWeights(frame=0.02))
"""Settings of the search: less than a minute on one core."""


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
    """Generator with one actor's mean appearance vector. Its state is the part of the actor's state that fine-tuning moves.

    Args:
        network: the prior.
        bank: pictures of the person.
        rows: int [N], rows of the reference pictures, the served one first.
    """

    def __init__(self, network: HeteroNetwork, bank: MouthBank, rows: npt.NDArray[np.intp]) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            vectors = network.embedder(to_tensor(bank.boxes[rows])).vector
        self.mean = vectors.mean(dim=0)
        """float32 [D], the mean appearance vector."""
        self.offset = self.mean - vectors[0]
        """float32 [D], what is added to the served reference picture's vector."""

    def default_state(self) -> Tensor:
        """Return the prior's own numbers for the layers: zeros."""
        return torch.zeros(self.network.layers_size)

    def forward(self, pictures: Tensor, state: Tensor) -> Tensor:
        """Return the face minus the reference picture; see HeteroNetwork.translated."""
        with torch.no_grad():
            maps = self.network.embedder(pictures[:, REFERENCE]).maps
        return self.network.translated(pictures, state, Appearance(self.mean.expand(len(pictures), -1), maps))
