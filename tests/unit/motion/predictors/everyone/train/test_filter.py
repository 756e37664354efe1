"""The closed-form filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.common.wire.phones import PHONES
from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.network import FILTER_PAST, STATES_REACH
from services.motion.predictors.everyone.train.filter import FilterConfig, alone, filter_inputs, fit_filter
from services.motion.speech_states import NUM_STATES, STATES
from services.motion.train.basis import committed_basis
from services.motion.train.clips import Clips
from services.motion.train.expression_space import ExpressionSpace
from tests.unit.motion.made_clips import in_memory, made_clip

SPACE = ExpressionSpace.of(committed_basis(), 3)


def test_the_filter_hears_the_vowel_that_opens_the_mouth(clips: Clips) -> None:
    fitted = fit_filter(clips, SPACE, FilterConfig(), "paper")
    other = made_clip(9)
    truth = SPACE.target(other.mouth_landmarks, other.usable).coefficients
    found = fitted.shared(filter_inputs(other, "paper"))
    moving = int(truth.std(axis=0).argmax())
    assert np.corrcoef(found[:, moving], truth[:, moving])[0, 1] > 0.6
    weight = np.abs(fitted.shared.weight[moving]).reshape(-1, 2, NUM_CONTENT).sum(axis=1)
    frame, channel = np.unravel_index(weight.argmax(), weight.shape)
    assert channel == PHONES.index("AA")
    assert abs(int(frame) - FILTER_PAST) <= 1


def test_a_narrow_corpus_keeps_what_holds_there_alone() -> None:
    narrow = replace(made_clip(0), apart="commands")
    fitted = fit_filter(in_memory([narrow, made_clip(2)]), SPACE, FilterConfig(), "paper")
    assert np.abs(alone(narrow, fitted, "paper")).max() > 0.01
    assert not alone(made_clip(2), fitted, "paper").any()


def test_the_filter_of_states_hears_the_component_that_opens_the_mouth() -> None:
    made = [made_clip(index) for index in range(4)]
    for clip in made:
        opening = clip.mouth_landmarks[:, 35, 1] - clip.mouth_landmarks[:, 5, 1]
        clip.features.extra[STATES][:, 120] = opening / opening.std()
    fitted = fit_filter(in_memory(made), SPACE, FilterConfig(), "states")
    truth = SPACE.target(made[0].mouth_landmarks, made[0].usable).coefficients
    moving = int(truth.std(axis=0).argmax())
    weight = np.abs(fitted.shared.weight[moving]).reshape(-1, NUM_STATES)
    assert np.unravel_index(weight.argmax(), weight.shape) == (STATES_REACH, 120)
    found = fitted.shared(filter_inputs(made[0], "states"))
    assert np.corrcoef(found[:, moving], truth[:, moving])[0, 1] > 0.9
