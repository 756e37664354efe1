"""The evaluation protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.motion.clips import as_filmed, shifted
from research.motion.protocol import NoStyleCode, encoded_mouths, evaluate_clip, evaluate_parts, folds, styled_folds
from services.common.array_types import Float32
from services.motion.models import MotionModels
from services.motion.style import Style
from services.motion.types import SpeechFeatures
from tests.unit.motion.made_clips import made_clip
from tests.unit.motion.synthesised import mouths


def opening(times: Float32) -> Float32:
    """Openings of a mouth at times in frames."""
    return np.asarray(6.0 + 5.0 * np.sin(1.3 * times) * np.sin(0.21 * times), np.float32)


def test_folds_exclude_enrolled_frames() -> None:
    """Folds never test on what was enrolled but for very short clips."""
    for length in (125, 300, 600):
        for fold in folds(length):
            enrolled, tested = set(range(length)[fold.enrolment]), set(range(length)[fold.test])
            assert enrolled
            assert tested
            assert not enrolled & tested


def test_mouths_compared_at_own_sound(models: MotionModels) -> None:
    """The sound comes half a frame after the picture, so frame n shows the mouth of the sound at n + 1/2."""
    times = np.arange(120, dtype=np.float32)
    clip = replace(made_clip(0, num_frames=120), mouth_landmarks=mouths(opening(times + 0.5)))

    def predict(features: SpeechFeatures, style: Style) -> Float32:
        return mouths(opening(times))

    encode = encoded_mouths(models.basis, NoStyleCode())
    whole, exact = (
        evaluate_clip(replace(clip, lag_fraction=fraction), encode, predict, control=False).scores for fraction in (0.0, 0.5)
    )
    assert whole.opening_correlation < 0.9
    assert exact.opening_correlation > 0.99
    assert exact.lip_distance < 0.3 * whole.lip_distance


def test_delay_at_the_true_time(models: MotionModels) -> None:
    """A predictor that is a frame late against the clip as filmed is on time once a lag of a frame is taken out."""
    times = np.arange(120, dtype=np.float32)
    made = made_clip(0, num_frames=120)
    # The features tell their own frame, so that the predictor draws the mouth of a frame earlier.
    numbered = replace(made.features, mel=np.broadcast_to(times[:, None, None], made.features.mel.shape).astype(np.float32))
    clip = replace(made, mouth_landmarks=mouths(opening(times)), features=numbered)

    def predict(features: SpeechFeatures, style: Style) -> Float32:
        return mouths(opening(features.mel[:, 0, 0] - 1.0))

    aligned, filmed = shifted(clip, 1), as_filmed(clip, 1)
    parts = styled_folds(aligned, encoded_mouths(models.basis, NoStyleCode()))
    hidden, seen = (evaluate_parts(each, parts, predict, control=False) for each in (aligned, filmed))
    assert seen.delay_ms == pytest.approx(40.0, abs=2.0)
    assert seen.scores.opening_correlation < 0.8
    assert hidden.delay_ms == pytest.approx(0.0, abs=2.0)
    assert hidden.scores.opening_correlation > 0.99
