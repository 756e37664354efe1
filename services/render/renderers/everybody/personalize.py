"""Personalisation of `everybody`: key pictures from the bank, then the FiLM state that draws this person best.

The paper trains on fifteen minutes of each person. From ten seconds, key pictures (services.render.key_pictures) give the
person's looks at once, and the search of services.render.personalization gives the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import NUM_KEYS, KeyPictures, choose_keys, matched_keys, packed
from services.render.pairs import LandmarkNoise, Pair, keyed_windows, target_mouth
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.everybody.network import WEIGHTS, load
from services.render.renderers.everybody.renderer import WINDOW_FRAMES, frame_channels, window_picture
from services.render.types import PersonalizeProgress


@dataclass(frozen=True, slots=True, eq=False)
class WindowView:
    """Window of footage as the network sees the window: as filmed, or in other colours.

    Attributes:
        rows: rows of the bank, frames t-6 to t.
        boxes: uint8 [7, 160, 160, 3], render boxes of these frames.
        keys: key pictures of the actor, in the same colours.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures


def window_pair(bank: MouthBank, view: WindowView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's last frame.

    Args:
        bank: landmarks and poses of the person.
        noise: strength of the noise on the target landmarks. All seven frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    channels: dict[int, UInt8] = {}
    points: Float32 = bank.box_landmarks[view.rows[-1]]
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    for index, row in enumerate(view.rows):
        if row in channels:
            continue
        _, mask, _, points = target_mouth(bank, row, noise, seed)
        channels[row] = frame_channels(view.boxes[index], mask, points, int(bank.frame_index[row]))
    target: UInt8 = view.boxes[-1]
    keys = matched_keys(view.keys, target, mask, points)
    return Pair(window_picture([channels[row] for row in view.rows], mask, keys), target)


def personalize_everybody(job: PersonalizeJob, recipe: PersonalizeRecipe = PersonalizeRecipe()) -> Iterator[PersonalizeProgress]:
    """Search the state of the bank's person; yield progress as services.render.personalization.personalized does.

    An actor's state is the FiLM state, then the key pictures. A bank of a few frames, all near its key pictures, has nothing to
    learn from: its state holds the key pictures with the prior's own FiLM state.

    Args:
        job: the bank, the prior's weights and settings. `train=False` skips the search.
        recipe: settings of the search.

    Errors: see `personalized`.
    """
    torch.set_num_threads(job.num_threads)
    network = load(job.weights / WEIGHTS)
    keys = choose_keys(job.bank, np.arange(job.bank.num_frames))
    pairs = actor_windows(job.bank, keys, recipe, job.seed) if job.train else []
    yield from personalized(network, pairs, job, recipe, lambda film: packed(film, keys))


def actor_windows(bank: MouthBank, keys: KeyPictures, recipe: PersonalizeRecipe, seed: int) -> list[Pair]:
    """Return pairs of the windows of a bank, as many as the recipe says. Arguments and errors: see pairs.keyed_windows."""
    windows = keyed_windows(bank, keys, length=WINDOW_FRAMES, fewest_keys=NUM_KEYS, count=recipe.num_pairs, seed=seed)
    return [
        window_pair(bank, WindowView(rows, bank.boxes[list(rows)], others), LandmarkNoise(), noise_seed)
        for rows, others, noise_seed in windows
    ]
