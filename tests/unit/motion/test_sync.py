"""The sync distance."""

from __future__ import annotations

import numpy as np
import pytest

from services.motion.constraints import ConstraintConfig
from services.motion.models import MotionModels
from services.motion.predictors.ugc.predictor import UgcGrid
from services.motion.style import Style
from services.motion.sync import similarities_at_lags, sync_distance
from services.motion.types import MAX_LAG, SpeechFeatures
from tests.unit.motion.synthesised import speech


@pytest.mark.parametrize("lag", [-7, 0, 4])
def test_similarity_peaks_at_lag(lag: int) -> None:
    """Similarities peak where sound is late by the lag."""
    rows = np.random.default_rng(0).normal(size=(120, 8))
    base = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    # Sound of frame n + lag belongs to the mouth of frame n.
    mouth, audio = base[20:100], base[20 - lag : 100 - lag]
    assert int(similarities_at_lags(audio, mouth, np.ones(80, np.bool_)).argmax()) - MAX_LAG == lag


def _talk(seed: int) -> SpeechFeatures:
    rng = np.random.default_rng(seed)
    sounds = ["AA", "B", "S", "UW", "M", "EH", "F", "AO", "P", "IY", "W", "AE"]
    return speech(["SIL", "SIL", *rng.choice(sounds, 36).tolist(), "SIL", "SIL"], frames_each=3)


def test_own_mouth_is_nearest(models: MotionModels, style: Style) -> None:
    """Speech is nearer to its own mouth at any lag than to another."""
    own, foreign = _talk(4), _talk(5)
    predictor = UgcGrid(models, style, ConstraintConfig())
    mouth = np.concatenate([predictor.push(own).mouth_landmarks, predictor.push_silence(2).mouth_landmarks])[20:100]
    usable = np.ones(80, np.bool_)
    late, apart = (
        sync_distance(heard, mouth, usable, models.sync_basis, models)
        for heard in (own[np.arange(16, 96)], foreign[np.arange(20, 100)])
    )
    assert 0.0 <= late < apart - 0.1
    assert apart <= 2.0
