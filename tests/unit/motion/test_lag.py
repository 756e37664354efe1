from __future__ import annotations

import numpy as np
import pytest

from services.common.errors import NoUsableFootage
from services.motion.constraints import ConstraintConfig
from services.motion.lag import estimate_lag, scores_at_lags
from services.motion.models import MotionModels
from services.motion.predictors.ugc.grid import UgcGrid
from services.motion.style import Style
from services.motion.types import MAX_LAG, SpeechFeatures
from tests.unit.motion.synthesised import mouths, speech


def _unit(seed: int, length: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(length, 8))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("lag", [-7, 0, 4])
def test_scores_peak_where_sound_is_late_by_the_lag(lag: int) -> None:
    base = _unit(0, 120)
    # Sound of frame n + lag belongs to the mouth of frame n.
    mouth, audio = base[20:100], base[20 - lag : 100 - lag]
    assert int(scores_at_lags(audio, mouth, np.ones(80, np.bool_)).argmax()) - MAX_LAG == lag


def _talk() -> SpeechFeatures:
    rng = np.random.default_rng(4)
    sounds = ["AA", "B", "S", "UW", "M", "EH", "F", "AO", "P", "IY", "W", "AE"]
    return speech(["SIL", "SIL", *rng.choice(sounds, 36).tolist(), "SIL", "SIL"], frames_each=3)


@pytest.mark.parametrize("lag", [-5, 0, 3])
def test_a_lag_put_into_a_clip_is_found(models: MotionModels, style: Style, lag: int) -> None:
    features = _talk()
    predictor = UgcGrid(models, style, ConstraintConfig())
    mouth = np.concatenate([predictor.push(features).mouth_landmarks, predictor.push_silence(2).mouth_landmarks])
    span = np.arange(20, 100)
    estimate = estimate_lag(
        features[slice(span[0] - lag, span[-1] + 1 - lag)], mouth[span], np.ones(len(span), np.bool_), models.sync_basis, models
    )
    assert abs(estimate.lag_frames - lag) <= 1
    assert estimate.confidence > 0.1
    assert estimate.scores.shape == (2 * MAX_LAG + 1,)
    assert 0.0 <= estimate.distance <= 2.0


def test_too_short_footage_is_named(models: MotionModels) -> None:
    with pytest.raises(NoUsableFootage, match="30 usable frames"):
        estimate_lag(_talk()[:40], mouths(np.ones(40, np.float32)), np.arange(40) < 20, models.sync_basis, models)


def test_a_mouth_that_never_opens_has_no_lag(models: MotionModels) -> None:
    with pytest.raises(NoUsableFootage, match="a mouth that opens"):
        estimate_lag(_talk()[:40], mouths(np.zeros(40, np.float32)), np.ones(40, np.bool_), models.sync_basis, models)


def test_sound_without_speech_has_no_lag(models: MotionModels) -> None:
    silent, moving = speech(["SIL"] * 20), mouths(np.linspace(0.0, 20.0, 60, dtype=np.float32))
    with pytest.raises(NoUsableFootage, match="12 frames with speech"):
        estimate_lag(silent, moving, np.ones(60, np.bool_), models.sync_basis, models)
