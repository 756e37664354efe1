"""

The sync distance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.errors import ArtefactCorruptError, NoUsableFootageError
from services.common.store.tensor_bytes import encode_arrays
from services.motion.constraints import ConstraintConfig
from services.motion.lag import (
    LAG_FILE,
    LAG_STATES,
    LagModel,
    correlations_at_lags,
    estimate_lag,
    peak_fraction,
    similarities_at_lags,
    sync_distance,
)
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.ugc.predictor import UgcPredictor
from services.motion.style import Style
from services.motion.types import MAX_LAG, SpeechFeatures
from tests.unit.motion.synthesised import mouths, random_features, speech, with_states


@pytest.fixture(scope="module")
def model() -> LagModel:
    return LagModel.read(WEIGHTS)


@pytest.mark.parametrize("lag", [-7, 0, 4])
def test_correlation_one_at_lag(lag: int) -> None:
    """R is one where sound is late by the lag."""
    base = np.random.default_rng(0).normal(size=(120, 3))
    # Sound of frame n + lag belongs to the mouth of frame n. Level and size of either side count for nothing.
    mouth, sound = base[20:100], 5.0 - 2.0 * base[20 - lag : 100 - lag]
    found = correlations_at_lags(sound, mouth, np.ones(80, np.bool_))
    assert found.shape == (2 * MAX_LAG + 1, 3)
    np.testing.assert_allclose(found[MAX_LAG + lag], -1.0, atol=1e-9)
    assert np.abs(np.delete(found, MAX_LAG + lag, axis=0)).max() < 0.6


def test_unusable_mouths_do_not_count() -> None:
    base = np.random.default_rng(1).normal(size=(90, 2))
    mouth, usable = base.copy(), np.ones(90, np.bool_)
    mouth[30:60], usable[30:60] = 50.0, False
    np.testing.assert_allclose(correlations_at_lags(base, mouth, usable)[MAX_LAG], 1.0, atol=1e-9)


def test_confidence_is_peak_over_median(model: LagModel) -> None:
    """The confidence is the height of the best score over the median."""
    features = with_states(random_features(60), LAG_STATES)
    moving = mouths((6.0 + 5.0 * np.random.default_rng(2).normal(size=60)).astype(np.float32))
    found = estimate_lag(features, moving, np.ones(60, np.bool_), model)
    assert found.scores.shape == (2 * MAX_LAG + 1,)
    assert int(found.scores.argmax()) - MAX_LAG == found.lag_frames
    assert found.confidence == pytest.approx(float(found.scores.max() - np.median(found.scores)))


@pytest.mark.parametrize(("peak", "fraction"), [(-0.6, -0.5), (-0.26, -0.25), (0.1, 0.0), (0.3, 0.25), (0.45, 0.5)])
def test_peak_to_quarter_frame(peak: float, fraction: float) -> None:
    """The peak is found to a quarter of a frame."""
    scores = (0.4 - 0.02 * (np.arange(-5, 6) - peak) ** 2).astype(np.float32)
    best = int(scores.argmax())
    assert best - 5 + peak_fraction(scores, best) == pytest.approx(fraction)


def test_a_score_without_a_peak_has_no_fraction() -> None:
    rising = np.arange(5, dtype=np.float32)
    assert [peak_fraction(rising, best) for best in range(5)] == [0.0] * 5
    assert peak_fraction(np.ones(5, np.float32), 2) == 0.0


def _talk(num_frames: int) -> SpeechFeatures:
    return with_states(speech(["AA", "B"] * (num_frames // 4), frames_each=2), LAG_STATES)


def test_too_short_footage_is_named(model: LagModel) -> None:
    with pytest.raises(NoUsableFootageError, match="30 usable frames"):
        estimate_lag(_talk(40), mouths(np.ones(40, np.float32)), np.arange(40) < 20, model)


def test_a_mouth_that_never_opens_has_no_lag(model: LagModel) -> None:
    with pytest.raises(NoUsableFootageError, match="a mouth that opens"):
        estimate_lag(_talk(40), mouths(np.zeros(40, np.float32)), np.ones(40, np.bool_), model)


def test_sound_without_speech_has_no_lag(model: LagModel) -> None:
    silent, moving = with_states(speech(["SIL"] * 20), LAG_STATES), mouths(np.linspace(0.0, 20.0, 60, dtype=np.float32))
    with pytest.raises(NoUsableFootageError, match="12 frames with speech"):
        estimate_lag(silent, moving, np.ones(60, np.bool_), model)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, model: LagModel, damage: str) -> None:
    arrays = model.arrays()
    if damage == "missing":
        del arrays["sound"]
    else:
        arrays["sound"] = arrays["sound"][:, :-1]
    (tmp_path / LAG_FILE).write_bytes(encode_arrays(arrays))
    with pytest.raises(ArtefactCorruptError, match=r"lag\.safetensors is damaged: sound .*\[16, 1344\]"):
        LagModel.read(tmp_path)


@pytest.mark.parametrize("lag", [-7, 0, 4])
def test_similarity_peaks_at_lag(lag: int) -> None:
    """Similarities peak where sound is late by the lag."""
    rows = np.random.default_rng(0).normal(size=(120, 8))
    base = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    # Sound of frame n + lag belongs to the mouth of frame n.
    mouth, audio = base[20:100], base[20 - lag : 100 - lag]
    assert int(similarities_at_lags(audio, mouth, np.ones(80, np.bool_)).argmax()) - MAX_LAG == lag


def _synced_talk(seed: int) -> SpeechFeatures:
    rng = np.random.default_rng(seed)
    sounds = ["AA", "B", "S", "UW", "M", "EH", "F", "AO", "P", "IY", "W", "AE"]
    return speech(["SIL", "SIL", *rng.choice(sounds, 36).tolist(), "SIL", "SIL"], frames_each=3)


def test_own_mouth_is_nearest(models: MotionModels, style: Style) -> None:
    """Speech is nearer to its own mouth at any lag than to another."""
    own, foreign = _synced_talk(4), _synced_talk(5)
    predictor = UgcPredictor(models, style, ConstraintConfig())
    mouth = np.concatenate([predictor.push(own).mouth_landmarks, predictor.push_silence(2).mouth_landmarks])[20:100]
    usable = np.ones(80, np.bool_)
    late, apart = (
        sync_distance(heard, mouth, usable, models.sync_basis, models)
        for heard in (own[np.arange(16, 96)], foreign[np.arange(20, 100)])
    )
    assert 0.0 <= late < apart - 0.1
    assert apart <= 2.0
