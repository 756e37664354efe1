"""Network inputs of the predictor."""

from __future__ import annotations

import numpy as np

from services.motion.features import silence
from services.motion.predictors.everybody.inputs import FEATURE, NUM_HEARD, NUM_POOLED_WINDOW, WINDOW, WINDOW_PAST, pooled_window
from services.motion.types import SpeechFeatures
from tests.unit.motion.predictors.everybody.person import heard


def test_what_is_pooled_is_the_sound_about_the_frame() -> None:
    window = np.zeros((WINDOW, 4, NUM_HEARD), np.float32)
    window[WINDOW_PAST + 2, :, 7] = 1.0
    pooled = pooled_window(window)
    assert pooled.shape == (NUM_POOLED_WINDOW,)
    assert pooled[-1] == 1.0
    by_gaussian = pooled[:-1].reshape(-1, NUM_HEARD)
    assert not np.delete(by_gaussian, 7, axis=1).any()
    assert by_gaussian[:, 7].argmax() == len(by_gaussian) - 1


def test_joined_features_lose_the_cepstra_where_a_part_has_none() -> None:
    assert not SpeechFeatures.joined([heard(3), silence(2)]).extra
    assert SpeechFeatures.joined([heard(3), heard(2)]).extra[FEATURE].shape == (5, 4, 20)
