"""Personalisation of `headpose`: key pictures, items of the memory, then the scales and shifts that draw this person best.

The paper fine-tunes its whole network on 300 frames. Here the network stays as it is, and everything that belongs to the person is
an input of the network: key pictures of the footage (services.render.key_pictures), the person's own items of the memory, written
by the memory's own rule, and the scales and shifts that the search of services.render.personalization finds. A still picture has no
other moment to learn from, so its state holds key picture and items only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from services.render.key_pictures import choose_keys, packed
from services.render.pairs import LandmarkNoise, Pair, keyed_windows
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.actor_items import ActorFootage, ActorNetwork, actor_items
from services.render.renderers.headpose.identity_features import embedding_of
from services.render.renderers.headpose.inputs import DRAWN_WINDOW, SHOWN_KEYS
from services.render.renderers.headpose.mouth_interior import mean_mouth
from services.render.renderers.headpose.network import WEIGHTS, load
from services.render.renderers.headpose.pairs import drawn_pair
from services.render.types import PersonalizeProgress

RECIPE: Final = PersonalizeRecipe(num_steps=80, learning_rate=7e-4)
"""Settings of the search: fewer and smaller steps than the other renderers take."""
FEWEST_FRAMES: Final = 100
"""With fewer frames the search makes pictures worse (paper, App. B: better one frame without tuning than a few dozen frames
with)."""


def personalize_headpose(job: PersonalizeJob, recipe: PersonalizeRecipe | None = None) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    An actor's state is scales and shifts, the items of the memory, then the key pictures. A bank of fewer than FEWEST_FRAMES frames
    is not searched, unless the job gives a number of steps or the caller a recipe. A still picture has nothing to learn from. In
    both cases the state holds items and key pictures with scales and shifts of the prior.

    Args:
        job: the bank, what draws the person, the prior's weights and settings. `train=False` skips the search.
        recipe: settings of the search; None: RECIPE.

    Raises:
        Cancelled: the call that this is done for is over.
        ModelNotFound: a weights file is missing, or the identity embedding is not the one that the model was trained with.
    """
    torch.set_num_threads(job.num_threads)
    bank, drawing = job.bank, job.drawing
    assert drawing is not None  # the renderer declares needs_identity
    is_enough = job.train and (bool(recipe or job.num_steps) or bank.num_frames >= FEWEST_FRAMES)
    recipe = recipe or RECIPE
    path = job.weights / WEIGHTS
    network, identity = load(path), embedding_of(path)
    keys = choose_keys(bank, np.arange(bank.num_frames))
    footage = ActorFootage(bank, keys, drawing, mean_mouth(job.weights))
    items = actor_items(footage, network, identity)
    pairs = actor_drawn(footage, recipe, job.seed) if is_enough else []
    yield from personalized(
        ActorNetwork(network, items), pairs, job, recipe, lambda film: packed(np.concatenate([film, items.numpy()]), keys)
    )


def actor_drawn(footage: ActorFootage, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Return pairs of the windows of footage, drawn with either albedo in turn, as many as the recipe says.

    Arguments and errors: see pairs.keyed_windows.
    """
    bank, has_detail = footage.bank, footage.drawing.has_detail
    windows = keyed_windows(bank, footage.keys, length=DRAWN_WINDOW, fewest_keys=SHOWN_KEYS, count=recipe.num_pairs, seed=seed)
    return [
        drawn_pair(bank, footage.view(rows, others, detailed=has_detail and place % 2 == 1), LandmarkNoise(), noise_seed)
        for place, (rows, others, noise_seed) in enumerate(windows)
    ]
