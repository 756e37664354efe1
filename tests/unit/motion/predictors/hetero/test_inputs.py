from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from services.motion.predictors.hetero.inputs import (
    QUIET,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    Heard,
    heard_clip,
    heard_shape,
    relative_mel,
)
from services.motion.speech_states import STATES
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import random_features, with_states


@pytest.mark.parametrize("heard", get_args(Heard))
def test_a_clip_is_heard_in_silence(heard: Heard) -> None:
    features = with_states(random_features(30), STATES)
    rows = heard_clip(features, heard)
    assert rows.shape == (WINDOW_PAST + 30 + WINDOW_AHEAD, *heard_shape(heard))
    quiet = QUIET if heard == "paper" else 0.0
    assert (rows[:WINDOW_PAST] == quiet).all()
    own = relative_mel(features) if heard == "paper" else features.extra[STATES]
    np.testing.assert_array_equal(rows[WINDOW_PAST:-WINDOW_AHEAD], own)


def test_a_louder_microphone_is_heard_the_same() -> None:
    features = random_features(40)
    louder = SpeechFeatures(features.posteriorgram, features.mel + 3.0, features.speech_probability)
    np.testing.assert_allclose(relative_mel(louder), relative_mel(features), atol=1e-4)


def test_a_window_has_the_papers_look_ahead_of_200_ms() -> None:
    assert 40 * WINDOW_AHEAD == 200
    assert WINDOW == WINDOW_PAST + 1 + WINDOW_AHEAD
