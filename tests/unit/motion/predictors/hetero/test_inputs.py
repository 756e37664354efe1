from __future__ import annotations

import numpy as np
import pytest

from services.motion.features import silence
from services.motion.predictors.hetero.inputs import (
    NUM_HEARD,
    WINDOW,
    WINDOW_AHEAD,
    WINDOW_PAST,
    HeardStream,
    heard_before,
    heard_clip,
    mel_of,
    pooled_window,
    relative_mel,
)
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import random_features


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_a_stream_in_pieces_is_heard_like_the_whole_clip(cut: int) -> None:
    features = random_features(130)
    stream = HeardStream()
    pieces = [stream.push(features[first : first + cut]) for first in range(0, len(features), cut)]
    pieces.append(stream.push(silence(WINDOW_AHEAD)))
    found = np.concatenate([heard_before(WINDOW_PAST), *pieces])
    assert found.tobytes() == heard_clip(features).tobytes()
    assert found.shape == (WINDOW_PAST + 130 + WINDOW_AHEAD, 4, NUM_HEARD)


def test_a_louder_microphone_is_heard_the_same() -> None:
    features = random_features(40)
    louder = SpeechFeatures(features.posteriorgram, features.mel + 3.0, features.speech_probability)
    np.testing.assert_allclose(relative_mel(louder), relative_mel(features), atol=1e-4)


def test_a_window_has_the_papers_look_ahead_of_200_ms() -> None:
    assert 40 * WINDOW_AHEAD == 200
    assert WINDOW == WINDOW_PAST + 1 + WINDOW_AHEAD


def test_network_and_correction_hear_their_own_channels() -> None:
    window = heard_clip(random_features(30))[5 : 5 + WINDOW]
    assert mel_of(window).shape == (WINDOW, 4, 80)
    changed = window.copy()
    changed[..., :80] += 1.0
    np.testing.assert_array_equal(pooled_window(changed), pooled_window(window))
    assert pooled_window(window)[-1] == 1.0
