"""The closed-form filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.common.wire.phones import PHONES
from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.network import FILTER_PAST
from services.motion.predictors.everyone.train.filter import FilterConfig, alone, filter_inputs, fit_filter
from services.motion.train.basis import committed_basis
from services.motion.train.clips import Clips
from services.motion.train.expression_space import ExpressionSpace
from tests.unit.motion.made_clips import in_memory, made_clip

SPACE = ExpressionSpace.of(committed_basis(), 3)


def test_the_filter_hears_the_vowel_that_opens_the_mouth(clips: Clips) -> None:
    fitted = fit_filter(clips, SPACE, FilterConfig())
    other = made_clip(9)
    truth = SPACE.target(other.mouth_landmarks, other.usable).coefficients
    found = fitted.shared(filter_inputs(other.content))
    moving = int(truth.std(axis=0).argmax())
    assert np.corrcoef(found[:, moving], truth[:, moving])[0, 1] > 0.6
    weight = np.abs(fitted.shared.weight[moving]).reshape(-1, 2, NUM_CONTENT).sum(axis=1)
    frame, channel = np.unravel_index(weight.argmax(), weight.shape)
    assert channel == PHONES.index("AA")
    assert abs(int(frame) - FILTER_PAST) <= 1


def test_a_narrow_corpus_keeps_what_holds_there_alone() -> None:
    narrow = replace(made_clip(0), apart="commands")
    fitted = fit_filter(in_memory([narrow, made_clip(2)]), SPACE, FilterConfig())
    assert np.abs(alone(narrow, fitted)).max() > 0.01
    assert not alone(made_clip(2), fitted).any()
