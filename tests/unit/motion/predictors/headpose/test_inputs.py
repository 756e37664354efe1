"""Network inputs of the predictor."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.features import silence
from services.motion.predictors.headpose.inputs import HeardStream, cepstra, heard_rows
from services.motion.types import SpeechFeatures
from tests.unit.motion.synthesised import random_features


def test_cepstra_are_the_cosine_transform_of_the_mel_rows() -> None:
    mel = np.zeros((1, 4, 80), np.float32)
    mel[..., :] = np.cos(np.pi / 80 * 3 * (np.arange(80) + 0.5))
    found = cepstra(mel)[0, 0]
    assert found.argmax() == 2
    assert found[2] == pytest.approx(np.sqrt(40.0), rel=1e-5)
    np.testing.assert_allclose(np.delete(found, 2), 0.0, atol=1e-5)


def test_what_is_heard_in_pieces_is_what_is_heard_at_once() -> None:
    features = SpeechFeatures.joined([random_features(130), silence(10)])
    stream = HeardStream()
    pieces = np.concatenate([stream.push(features[begin : begin + 7]) for begin in range(0, 140, 7)])
    assert pieces.tobytes() == heard_rows(features).tobytes()
