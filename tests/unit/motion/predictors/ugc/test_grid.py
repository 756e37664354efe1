"""Motion of the predictor, with and without a person's correction."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.landmarks import mouth_opening
from services.common.wire.timeline import Timeline
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.pooled_speech import NUM_POOLED
from services.motion.predictors.ugc.grid import CORRECTION, UgcGrid
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures
from tests.unit.motion import streams
from tests.unit.motion.streams import NTSC, PAL
from tests.unit.motion.synthesised import random_features, speech


def run(
    models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline, *, cut: int = 1000, num_frames: int = 0
) -> list[Motion]:
    return streams.run(MotionStream(UgcGrid(models, style), timeline, num_frames), features, cut)


@pytest.fixture(scope="module")
def personal(style: Style) -> Style:
    correction = np.random.default_rng(3).normal(0.0, 0.2, (len(style.spread), NUM_POOLED))
    return style.adding(**{CORRECTION: correction.astype(np.float32)})


def joined(parts: list[Motion]) -> np.ndarray:
    return np.concatenate([part.mouth_landmarks for part in parts])


@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_a_personalised_style_the_same_bytes(models: MotionModels, personal: Style, cut: int) -> None:
    features = random_features(45)
    whole, pieces = (joined(run(models, personal, features, NTSC, cut=size)) for size in (1000, cut))
    assert whole.tobytes() == pieces.tobytes()


def test_a_correction_hears_no_further_than_the_network(models: MotionModels, style: Style, personal: Style) -> None:
    features, other = random_features(40), random_features(40, seed=1)
    mixed = SpeechFeatures.joined([features[:30], other[30:]])
    first, second = (joined(run(models, personal, each, PAL)) for each in (features, mixed))
    np.testing.assert_array_equal(first[:28], second[:28])
    assert not np.array_equal(first[28:], second[28:])
    assert not np.array_equal(first, joined(run(models, style, features, PAL)))


def test_a_correction_of_nothing_changes_nothing(models: MotionModels, style: Style, personal: Style) -> None:
    features = random_features(20)
    nothing = personal.adding(**{CORRECTION: np.zeros_like(personal.added[CORRECTION])})
    plain, same = (joined(run(models, each, features, PAL)) for each in (style, nothing))
    np.testing.assert_array_equal(plain, same)


def test_silence_stays_shut_for_who_is_personalised(models: MotionModels, personal: Style) -> None:
    found = joined(run(models, personal, silence(50), PAL))
    np.testing.assert_allclose(found, np.broadcast_to(personal.closed_mouth, found.shape), atol=1e-4)


def test_answer_comes_two_frames_behind_the_features(models: MotionModels, style: Style) -> None:
    stream = MotionStream(UgcGrid(models, style), PAL)
    counts = [len(stream.push(n, random_features(10)[n : n + 1]).mouth_landmarks) for n in range(10)]
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


def test_silent_sound_keeps_the_mouth_shut(models: MotionModels, style: Style) -> None:
    opening = mouth_opening(joined(run(models, style, silence(50), PAL)))
    np.testing.assert_allclose(opening, mouth_opening(style.closed_mouth), atol=1e-3)


def test_open_vowels_open_the_mouth_and_bilabials_close_it(models: MotionModels, style: Style) -> None:
    phones = ["SIL", "B", "AA", "M", "AA", "P", "AA", "T", "AA", "SIL"]
    opening = mouth_opening(joined(run(models, style, speech(phones, frames_each=5), PAL))).reshape(-1, 5)
    of = {phone: [opening[i, 2] for i, p in enumerate(phones) if p == phone] for phone in phones}
    closed = float(mouth_opening(style.closed_mouth))
    assert min(of["AA"]) > closed + 2.0
    assert max(of["B"] + of["M"] + of["P"]) - closed < 0.03 * (min(of["AA"]) - closed)


def test_the_ablation_forgets_the_style_and_keeps_the_face(models: MotionModels, style: Style, personal: Style) -> None:
    plain = models.mean_speaker(style)
    np.testing.assert_array_equal(plain.mean_mouth, style.mean_mouth)
    features = random_features(12)
    assert not np.array_equal(joined(run(models, plain, features, PAL)), joined(run(models, style, features, PAL)))
    np.testing.assert_array_equal(
        joined(run(models, models.mean_speaker(personal), features, PAL)), joined(run(models, plain, features, PAL))
    )
