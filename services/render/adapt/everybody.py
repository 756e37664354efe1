"""Adapt `everybody` to one person: key pictures from the bank, then the FiLM state that draws this person best.

The paper trains on fifteen minutes of each person. From ten seconds, key pictures (services.render.key_pictures) give the looks at
once, and the search of adapt/personalize.py the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from services.common.calls import check_still_wanted
from services.common.mouth_bank import MouthBank
from services.render.adapt.everybody_pairs import WindowView, window_pair
from services.render.adapt.pairs import NEAREST_FRAMES, LandmarkNoise, Pair, window_rows
from services.render.adapt.personalize import PersonalizeModels, PersonalizeRecipe, StateSearch
from services.render.heatmaps import NUM_KEYS, WINDOW_FRAMES
from services.render.key_pictures import KeyPictures, choose_keys, packed
from services.render.types import PersonalizeProgress


def personalize_everybody(
    bank: MouthBank,
    models: PersonalizeModels,
    *,
    num_steps: int = 0,
    seed: int = 0,
    num_threads: int = 1,
    train: bool = True,
    recipe: PersonalizeRecipe | None = None,
) -> Iterator[PersonalizeProgress]:
    """Key pictures and FiLM state of the bank's person, packed into one state; reports and arguments as `personalize`.

    A bank of a few frames, all near its key pictures, has nothing to learn from: then, and with train=False, the only report, of
    step 0 of 0, holds the key pictures with the prior's own FiLM state.

    Raises:
        Cancelled: the call that this is done for is over; looked at before every step.
        ModelNotFound: a weight file is missing.
    """
    torch.set_num_threads(num_threads)
    recipe = recipe or PersonalizeRecipe()
    network = models.everybody()
    keys = choose_keys(bank, np.arange(bank.num_frames))
    pairs = actor_windows(bank, keys, recipe, seed) if train else []
    if not pairs:
        yield PersonalizeProgress(0, 0, 0.0, packed(network.default_state().numpy(), keys))
        return
    search = StateSearch(network, models.perceptual(), models.judge(), recipe, num_steps or recipe.num_steps)
    for report in search.run(pairs, seed):
        yield replace(report, state=packed(report.state, keys))


def actor_windows(bank: MouthBank, keys: KeyPictures, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Windows of the bank, each shown key pictures of other moments only: those near its end would hold the answer."""
    rng = np.random.default_rng((seed, 0))
    far = np.abs(bank.frame_index[:, None] - bank.frame_index[list(keys.rows)]) > NEAREST_FRAMES
    reachable = np.flatnonzero(far.sum(axis=1) >= NUM_KEYS)
    if not len(reachable):
        return []
    pairs = []
    for row in reachable[np.unique(np.linspace(0, len(reachable) - 1, recipe.num_pairs).round().astype(int))]:
        check_still_wanted()
        rows = window_rows(bank.frame_index, int(row), WINDOW_FRAMES)
        others = KeyPictures(keys.pictures[far[row]], keys.landmarks[far[row]])
        view = WindowView(rows, bank.boxes[list(rows)], others)
        pairs.append(window_pair(bank, view, LandmarkNoise(), int(rng.integers(1 << 31))))
    return pairs
