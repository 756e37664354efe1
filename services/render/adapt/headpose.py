"""Adapt `headpose` to one person: key pictures, items of the memory, then the scales and shifts that draw this person best.

The paper fine-tunes its whole network on 300 frames. Here the network stays, and what belongs to the person is its input: key
pictures of the footage (services.render.key_pictures), the person's own items of the memory, written by its own rule, and the state
that the search of adapt/personalize.py finds. A still picture has no other moment to learn from: key picture and items are all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from services.common.calls import check_still_wanted
from services.common.identity_drawing import IdentityDrawing
from services.common.mouth_bank import MouthBank
from services.render.adapt.headpose_pairs import DrawnView, drawn_pair
from services.render.adapt.pairs import NEAREST_FRAMES, NO_NOISE, LandmarkNoise, Pair, window_rows
from services.render.adapt.personalize import PersonalizeModels, PersonalizeRecipe, StateSearch
from services.render.drawn_face import DRAWN_WINDOW, RENDERED, SHOWN_KEYS
from services.render.identity_features import IdentityFeatures
from services.render.key_pictures import KeyPictures, choose_keys, packed
from services.render.networks.headpose import HeadposeNetwork
from services.render.networks.identity_memory import IdentityMemory
from services.render.types import Float32, PersonalizeProgress

RECIPE = PersonalizeRecipe(num_steps=80, learning_rate=7e-4)
"""Shorter and slower than the search of the other renderers."""
FEWEST_FRAMES = 100
"""Below it the search makes things worse (paper, App. B: rather one frame and no tuning than a few dozen frames and tuning)."""
_ITEM_FRAMES = 12


class ActorNetwork(nn.Module):
    """The network with one actor's items of the memory: of their state, scales and shifts are left to be found.

    Args:
        network: generator and memory.
        items: float [actor_items * item_size].
    """

    def __init__(self, network: HeadposeNetwork, items: Tensor) -> None:
        super().__init__()
        self.network = network
        self.items = items

    def default_state(self) -> Tensor:
        """No change of what the prior draws: zeros, float32 [film_size]."""
        return torch.zeros(self.network.film_size)

    def forward(self, pictures: Tensor, film: Tensor) -> Tensor:
        """HeadposeNetwork.forward with scales and shifts [B, film_size]."""
        made: Tensor = self.network(pictures, torch.cat([film, self.items.expand(len(film), -1)], dim=1))
        return made


def personalize_headpose(
    bank: MouthBank,
    drawing: IdentityDrawing,
    models: PersonalizeModels,
    *,
    num_steps: int = 0,
    seed: int = 0,
    num_threads: int = 1,
    train: bool = True,
    recipe: PersonalizeRecipe | None = None,
) -> Iterator[PersonalizeProgress]:
    """Key pictures, items and state of the bank's person, packed into one; reports and arguments as `personalize`.

    From a bank of few frames nothing is learned, unless steps or a recipe are given, and a still picture has nothing to learn from:
    then the only report, of step 0 of 0, holds key pictures and items with the prior's own scales and shifts.

    Args:
        bank: the person's, of one frame or more.
        drawing: draws the person.
        models: the prior and what judges it.
        num_steps: 0 takes the recipe's.
        seed: of the choice of frames and noise.
        num_threads: of the thread that draws the reports, as long as it lives.
        train: False: key pictures and items alone, as of a bank of a few frames.
        recipe: all else.

    Raises:
        Cancelled: the call that this is done for is over; looked at before every step.
        ModelNotFound: a weight file is missing, or the embedding is not the model's.
    """
    torch.set_num_threads(num_threads)
    is_enough = train and (bool(recipe or num_steps) or bank.num_frames >= FEWEST_FRAMES)
    recipe = recipe or RECIPE
    network, identity = models.headpose(), models.identity_features()
    keys = choose_keys(bank, np.arange(bank.num_frames))
    items = actor_items(bank, keys, drawing, network, identity)
    actor = ActorNetwork(network, items)
    pairs = actor_drawn(bank, keys, drawing, recipe, seed) if is_enough else []
    if not pairs:
        yield PersonalizeProgress(0, 0, 0.0, _state(actor.default_state().numpy(), items, keys))
        return
    search = StateSearch(actor, models.perceptual(), models.judge(), recipe, num_steps or recipe.num_steps)
    for report in search.run(pairs, seed):
        yield replace(report, state=_state(report.state, items, keys))


def actor_items(
    bank: MouthBank, keys: KeyPictures, drawing: IdentityDrawing, network: HeadposeNetwork, identity: IdentityFeatures
) -> Tensor:
    """The person's items, float32 [actor_items * item_size]: pairs of frames of the bank, written into an empty memory."""
    rows = np.unique(np.linspace(0, bank.num_frames - 1, _ITEM_FRAMES).round().astype(int))
    memory = IdentityMemory(replace(network.memory.config, items=network.config.actor_items))
    for row in rows:
        check_still_wanted()
        for detailed in (False, True)[: 1 + drawing.has_detail]:
            alone = DrawnView((int(row),) * DRAWN_WINDOW, bank.boxes[[row] * DRAWN_WINDOW], keys, drawing, detailed)
            pair = drawn_pair(bank, alone, NO_NOISE, 0)
            rendered = torch.from_numpy(pair.picture[None, ..., RENDERED].copy()).permute(0, 3, 1, 2).float().div_(255.0)
            with torch.no_grad():
                query = network.spatial(rendered)
            memory.update(query, torch.from_numpy(identity.of(pair.target[None])))
    return torch.cat([memory.spatial, memory.identity], dim=1).flatten()


def actor_drawn(bank: MouthBank, keys: KeyPictures, drawing: IdentityDrawing, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Windows of the bank in either albedo, each shown key pictures of other moments only: those near it would hold the answer."""
    rng = np.random.default_rng((seed, 0))
    far = np.abs(bank.frame_index[:, None] - bank.frame_index[list(keys.rows)]) > NEAREST_FRAMES
    reachable = np.flatnonzero(far.sum(axis=1) >= SHOWN_KEYS)
    if not len(reachable):
        return []
    pairs = []
    chosen = reachable[np.unique(np.linspace(0, len(reachable) - 1, recipe.num_pairs).round().astype(int))]
    for place, row in enumerate(chosen):
        check_still_wanted()
        others = KeyPictures(keys.pictures[far[row]], keys.landmarks[far[row]])
        rows = window_rows(bank.frame_index, int(row), DRAWN_WINDOW)
        view = DrawnView(rows, bank.boxes[list(rows)], others, drawing, drawing.has_detail and place % 2 == 1)
        pairs.append(drawn_pair(bank, view, LandmarkNoise(), int(rng.integers(1 << 31))))
    return pairs


def _state(film: Float32, items: Tensor, keys: KeyPictures) -> Float32:
    return packed(np.concatenate([film, items.numpy()]), keys)
