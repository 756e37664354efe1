"""Tests of the predictor `ugc`: motion with and without a person's correction, and the memory of minutes of footage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import mouth_opening
from services.motion.features import NUM_POOLED, silence
from services.motion.models import MotionModels
from services.motion.predictors.ugc.predictor import (
    CORRECTION,
    MEMORY,
    MIN_FRAMES,
    MOMENTS,
    NUM_MOMENTS,
    WINDOW,
    UgcPredictor,
    landmarks_of_frame,
    network_input,
    personalize,
    pooled_content,
    remembered,
)
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.types import NUM_PHONES, ROWS_PER_FRAME, Footage, SpeechFeatures
from tests.unit.motion.streams import PAL, mouths_of
from tests.unit.motion.synthesised import mouths, random_features, speech

FRAMES = 600
TAUGHT = 520


def moved(models: MotionModels, style: Style, features: SpeechFeatures) -> Float32:
    return mouths_of(MotionStream(UgcPredictor(models, style), PAL), features)


@pytest.fixture(scope="module")
def personal(style: Style) -> Style:
    correction = np.random.default_rng(3).normal(0.0, 0.2, (len(style.spread), NUM_POOLED))
    return style.adding(**{CORRECTION: correction.astype(np.float32)})


def test_a_correction_hears_no_further_than_the_network(models: MotionModels, style: Style, personal: Style) -> None:
    features, other = random_features(40), random_features(40, seed=1)
    mixed = SpeechFeatures.joined([features[:30], other[30:]])
    first, second = (moved(models, personal, each) for each in (features, mixed))
    np.testing.assert_array_equal(first[:28], second[:28])
    assert not np.array_equal(first[28:], second[28:])
    assert not np.array_equal(first, moved(models, style, features))


def test_a_correction_of_nothing_changes_nothing(models: MotionModels, style: Style, personal: Style) -> None:
    features = random_features(20)
    nothing = personal.adding(**{CORRECTION: np.zeros_like(personal.added[CORRECTION])})
    plain, same = (moved(models, each, features) for each in (style, nothing))
    np.testing.assert_array_equal(plain, same)


def test_silence_stays_shut_for_who_is_personalised(models: MotionModels, personal: Style) -> None:
    found = moved(models, personal, silence(50))
    np.testing.assert_allclose(found, np.broadcast_to(personal.closed_mouth, found.shape), atol=1e-4)


def test_answer_comes_two_frames_behind_the_features(models: MotionModels, style: Style) -> None:
    stream = MotionStream(UgcPredictor(models, style), PAL)
    counts = [len(stream.push(n, random_features(10)[n : n + 1]).mouth_landmarks) for n in range(10)]
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


def test_silent_sound_keeps_the_mouth_shut(models: MotionModels, style: Style) -> None:
    opening = mouth_opening(moved(models, style, silence(50)))
    np.testing.assert_allclose(opening, mouth_opening(style.closed_mouth), atol=1e-3)


def test_vowels_open_bilabials_close(models: MotionModels, style: Style) -> None:
    """Open vowels open the mouth and bilabials close it."""
    phones = ["SIL", "B", "AA", "M", "AA", "P", "AA", "T", "AA", "SIL"]
    opening = mouth_opening(moved(models, style, speech(phones, frames_each=5))).reshape(-1, 5)
    of = {phone: [opening[i, 2] for i, p in enumerate(phones) if p == phone] for phone in phones}
    closed = float(mouth_opening(style.closed_mouth))
    assert min(of["AA"]) > closed + 2.0
    assert max(of["B"] + of["M"] + of["P"]) - closed < 0.03 * (min(of["AA"]) - closed)


def test_ablation_keeps_the_face(models: MotionModels, style: Style, personal: Style) -> None:
    """The ablation forgets the style and keeps the face."""
    plain = models.mean_speaker(style)
    np.testing.assert_array_equal(plain.mean_mouth, style.mean_mouth)
    features = random_features(12)
    assert not np.array_equal(moved(models, plain, features), moved(models, style, features))
    np.testing.assert_array_equal(moved(models, models.mean_speaker(personal), features), moved(models, plain, features))


def sentence(frames: int) -> SpeechFeatures:
    """Phones of .12 s each, in an order that does not repeat within the sentence."""
    made = random_features(frames)
    phones = np.random.default_rng(3).integers(0, NUM_PHONES, -(-frames // 3)).repeat(3)[:frames]
    certain = np.eye(NUM_PHONES, dtype=np.float32)[phones]
    return replace(made, posteriorgram=np.repeat(certain[:, None], ROWS_PER_FRAME, axis=1))


def windows(features: SpeechFeatures) -> list[Float32]:
    padded = network_input(features)
    return [padded[n : n + WINDOW] for n in range(len(features))]


def spoken_by(style: Style, features: SpeechFeatures, models: MotionModels) -> Float32:
    return np.stack([landmarks_of_frame(window, style, models) for window in windows(features)])


def personalised(style: Style, features: SpeechFeatures, frames: Float32, models: MotionModels) -> Style:
    steps = list(personalize(style, features, Footage(frames, np.ones(len(frames), np.bool_)), models))
    assert [step.style is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert steps[-1].style is not None
    return steps[-1].style


def with_habits(style: Style, features: SpeechFeatures) -> Style:
    """A person who does something of their own at moments that sound like some moments of these features."""
    heard = np.stack([pooled_content(window)[:-1] for window in windows(features)])
    moments = heard[np.linspace(0, len(heard) - 1, NUM_MOMENTS).round().astype(int)]
    weights = np.zeros((len(style.spread), NUM_MOMENTS), np.float32)
    weights[:3, ::20] = np.random.default_rng(1).normal(0.0, 2.0, (3, len(range(0, NUM_MOMENTS, 20))))
    return style.adding(
        **{CORRECTION: np.zeros((len(style.spread), heard.shape[1] + 1), np.float32), MOMENTS: moments, MEMORY: weights}
    )


def test_minutes_teach_moments(models: MotionModels, style: Style) -> None:
    """Sentences come again. Each of their moments has a mouth of its own, more moments than the linear correction has numbers."""
    features = SpeechFeatures.joined([sentence(FRAMES // 2)] * 2)
    truth = spoken_by(with_habits(style, features), features, models)
    refined = personalised(style, features[:TAUGHT], truth[:TAUGHT], models)
    assert refined.added[MOMENTS].shape == (NUM_MOMENTS, 125)
    before, after = (np.abs(spoken_by(each, features[TAUGHT:], models) - truth[TAUGHT:]).mean() for each in (style, refined))
    assert after < 0.7 * before


def test_seconds_forget_moments(models: MotionModels, style: Style) -> None:
    """Seconds of a person have no memory and forget an older one."""
    features = sentence(MIN_FRAMES - 1)
    older = with_habits(style, features)
    opening = 5.0 + 4.0 * np.sin(np.arange(len(features)) * 0.7)
    refined = personalised(older, features, mouths(opening.astype(np.float32)), models)
    assert MEMORY not in refined.added
    assert MOMENTS not in refined.added
    assert remembered(pooled_content(windows(features)[0]), refined) is None


def test_far_moment_reminds_nothing(models: MotionModels, style: Style) -> None:
    """A moment far from all moments reminds of nothing."""
    habits = with_habits(style, sentence(300))
    near = remembered(np.append(habits.added[MOMENTS][0], 1.0).astype(np.float32), habits)
    far = remembered(np.full(126, 100.0, np.float32), habits)
    assert near is not None
    assert far is not None
    assert np.abs(far).max() < 1e-6 < np.abs(near).max()


def test_a_consistent_habit_of_the_person_is_learned(models: MotionModels, style: Style) -> None:
    features = random_features(150)
    smile = models.basis.reconstruct(np.float32(0.4) * style.spread)
    truth = style.rest_mouth + np.float32(0.6) * (spoken_by(style, features, models) - style.rest_mouth) + smile
    refined = personalised(style, features[:100], truth[:100], models)
    before, after = (np.abs(spoken_by(s, features[100:], models) - truth[100:]).mean() for s in (style, refined))
    assert after < 0.75 * before


def test_personal_sound_is_learned(models: MotionModels, style: Style) -> None:
    """The motion of the person for a sound is learned."""
    own = np.random.default_rng(1).normal(0.0, 0.5, (len(style.spread), NUM_POOLED)).astype(np.float32)
    features = random_features(230)
    truth = spoken_by(style.adding(**{CORRECTION: own}), features, models)
    refined = personalised(style, features[:180], truth[:180], models)
    before, after = (np.abs(spoken_by(s, features[180:], models) - truth[180:]).mean() for s in (style, refined))
    assert after < 0.55 * before


def test_unrelated_mouths_teach_little(models: MotionModels, style: Style) -> None:
    """Mouths that have nothing to do with the sound teach little."""
    features = random_features(230)
    truth = spoken_by(style, features, models)
    strange = truth[:180] + np.random.default_rng(2).permutation(truth[:180] - truth[:180].mean(axis=0))
    refined = personalised(style, features[:180], strange, models)
    taught, told = (spoken_by(s, features[180:], models) - truth[180:].mean(axis=0) for s in (refined, style))
    assert np.linalg.norm(taught - told) < 0.25 * np.linalg.norm(told)


def test_confirming_footage_keeps_style(models: MotionModels, style: Style) -> None:
    """Footage that confirms the style leaves it as it is."""
    features = random_features(80)
    truth = spoken_by(style, features, models)
    refined = personalised(style, features, truth, models)
    np.testing.assert_allclose(spoken_by(refined, features, models), truth, atol=0.01)


def test_personalising_twice_is_personalising_once(models: MotionModels, style: Style) -> None:
    features, shown = random_features(80), mouths(np.abs(np.sin(np.arange(80) * 0.7)).astype(np.float32) * 9.0)
    once = personalised(style, features, shown, models)
    twice = personalised(once, features, shown, models)
    for name, array in once.arrays().items():
        np.testing.assert_array_equal(array, twice.arrays()[name])


def test_too_little_footage_is_named(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootageError, match="50 usable frames"):
        list(personalize(style, random_features(30), Footage(mouths(np.ones(30, np.float32)), np.ones(30, np.bool_)), models))
