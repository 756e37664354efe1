"""Training of the recurrent networks of the speech map of live speech."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from research.methods.speech_map.recurrent import train_networks
from research.motion.clips import Clips
from research.motion.ridge import mouth_target
from research.training.trainset import BoundedCache
from services.common.face.landmarks import mouth_opening
from services.motion.models import MotionModels
from services.motion.speech_map import LIVE, RecurrentNetworks
from services.motion.speech_states import neighbours
from tests.unit.motion.made_clips import in_memory, made_clip


@pytest.fixture(scope="module")
def clips() -> Clips:
    """Clips of which one state tells the opening three frames later, beyond what the states of the frame itself tell."""
    found = []
    for index in range(6):
        clip = made_clip(index, num_frames=200)
        states = 0.1 * clip.features.extra[LIVE.feature]
        states[:, 7] = np.roll(mouth_opening(clip.mouth_landmarks), -3)
        found.append(replace(clip, features=replace(clip.features, extra={LIVE.feature: states})))
    return in_memory(found)


def arrays(networks: RecurrentNetworks) -> bytes:
    return b"".join(getattr(networks, each.name).tobytes() for each in fields(networks))


def correlation(networks: RecurrentNetworks, clips: Clips, models: MotionModels) -> float:
    """Of the predicted and the true opening."""
    clip = clips[0]
    windows = neighbours(clip.features.extra[LIVE.feature], LIVE.past, LIVE.ahead)
    found = np.stack([networks.predict(window, LIVE.past) for window in windows])
    return float(np.corrcoef(found[:, 0], mouth_target(clip, models.basis)[:, 0])[0, 1])


def test_networks_learn_from_the_frames_about_a_frame(clips: Clips, models: MotionModels) -> None:
    few, more = (correlation(train_networks(clips, models.basis, LIVE, steps), clips, models) for steps in (2, 80))
    assert more > 0.5
    assert more > few + 0.3


def test_the_same_clips_give_the_same_bytes(clips: Clips, models: MotionModels) -> None:
    first = train_networks(clips, models.basis, LIVE, 3)
    torch.manual_seed(99)
    assert arrays(train_networks(clips, models.basis, LIVE, 3)) == arrays(first)


def test_a_narrow_corpus_teaches_nothing(clips: Clips, models: MotionModels) -> None:
    held = dict(zip(clips.rows, clips, strict=True))
    narrow = replace(clips.rows[0], name="narrow", narrow=True)
    both = {**held, narrow: made_clip(8, num_frames=200)}
    wider = Clips(both, BoundedCache(both.__getitem__, lambda clip: 1))
    assert arrays(train_networks(wider, models.basis, LIVE, 3)) == arrays(train_networks(clips, models.basis, LIVE, 3))
