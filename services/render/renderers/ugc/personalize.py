"""Personalisation of `ugc`: the FiLM state that draws one person best, from frames of their bank (paper `ugc`, Sec. III-C)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from services.common.chassis.calls import check_still_wanted
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, perturbed, spread_rows
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.network import WEIGHTS, load
from services.render.renderers.ugc.pairs import choose_sources, make_pair
from services.render.types import PersonalizeProgress

BLENDED: Final = 3
"""Largest number of textures that are blended, as many as retrieval blends."""


def personalize_ugc(job: PersonalizeJob, recipe: PersonalizeRecipe = PersonalizeRecipe()) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    A bank whose frames all lie within a few of each other has no pair to learn from. With `job.train=False` there is no search.
    Errors: see `personalized`.
    """
    torch.set_num_threads(job.num_threads)
    network = load(job.weights / WEIGHTS)
    pairs = actor_pairs(job.bank, recipe, job.seed) if job.train else []
    yield from personalized(network, pairs, job, recipe)


def actor_pairs(bank: MouthBank, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Return pairs of the bank, each as retrieval would serve the frame if the frame's own moment were not in the bank.

    Args:
        bank: textures and landmarks of the person.
        recipe: number of pairs.
        seed: random seed of the noise.

    Raises:
        Cancelled: the call that this is done for is over.
    """
    rng = np.random.default_rng((seed, 0))
    index = bank.frame_index
    reachable = np.flatnonzero(np.maximum(index - index[0], index[-1] - index) > NEAREST_FRAMES)
    if not len(reachable):
        return []
    everything, noise = np.arange(bank.num_frames), LandmarkNoise()
    pairs = []
    for row in spread_rows(reachable, recipe.num_pairs):
        check_still_wanted()
        sources = choose_sources(bank, int(row), everything, BLENDED)
        pairs.append(make_pair(bank, int(row), sources, perturbed(bank.mouth[row], noise, rng)))
    return pairs
