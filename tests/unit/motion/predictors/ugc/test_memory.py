"""What minutes of a person add to the correction of seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.common.array_types import Float32
from services.motion.models import MotionModels
from services.motion.predictors.ugc.grid import CORRECTION, landmarks_of_frame
from services.motion.predictors.ugc.inputs import WINDOW, heard_clip, pooled_content
from services.motion.predictors.ugc.memory import MEMORY, MIN_FRAMES, MOMENTS, NUM_MOMENTS, remembered
from services.motion.predictors.ugc.personalize import personalize
from services.motion.style import Style
from services.motion.types import NUM_PHONES, ROWS_PER_FRAME, Footage, SpeechFeatures
from tests.unit.motion.synthesised import mouths, random_features

FRAMES = 600
TAUGHT = 520


def sentence(frames: int) -> SpeechFeatures:
    """Phones of .12 s each, in an order that does not repeat within the sentence."""
    made = random_features(frames)
    phones = np.random.default_rng(3).integers(0, NUM_PHONES, -(-frames // 3)).repeat(3)[:frames]
    certain = np.eye(NUM_PHONES, dtype=np.float32)[phones]
    return replace(made, posteriorgram=np.repeat(certain[:, None], ROWS_PER_FRAME, axis=1))


def windows(features: SpeechFeatures) -> list[Float32]:
    padded = heard_clip(features)
    return [padded[n : n + WINDOW] for n in range(len(features))]


def spoken_by(style: Style, features: SpeechFeatures, models: MotionModels) -> Float32:
    return np.stack([landmarks_of_frame(window, style, models) for window in windows(features)])


def personalised(style: Style, features: SpeechFeatures, frames: Float32, models: MotionModels) -> Style:
    *_, last = personalize(style, features, Footage(frames, np.ones(len(frames), np.bool_)), models)
    assert last.style is not None
    return last.style


def with_habits(style: Style, features: SpeechFeatures) -> Style:
    """A person who does something of their own at moments that sound like some moments of these features."""
    heard = np.stack([pooled_content(window)[:-1] for window in windows(features)])
    moments = heard[np.linspace(0, len(heard) - 1, NUM_MOMENTS).round().astype(int)]
    weights = np.zeros((len(style.spread), NUM_MOMENTS), np.float32)
    weights[:3, ::20] = np.random.default_rng(1).normal(0.0, 2.0, (3, len(range(0, NUM_MOMENTS, 20))))
    return style.adding(
        **{CORRECTION: np.zeros((len(style.spread), heard.shape[1] + 1), np.float32), MOMENTS: moments, MEMORY: weights}
    )


def test_minutes_of_a_person_teach_what_the_person_does_at_some_moments(models: MotionModels, style: Style) -> None:
    """Sentences come again. Each of their moments has a mouth of its own, more moments than the linear correction has numbers."""
    features = SpeechFeatures.joined([sentence(FRAMES // 2)] * 2)
    truth = spoken_by(with_habits(style, features), features, models)
    refined = personalised(style, features[:TAUGHT], truth[:TAUGHT], models)
    assert refined.added[MOMENTS].shape == (NUM_MOMENTS, 125)
    before, after = (np.abs(spoken_by(each, features[TAUGHT:], models) - truth[TAUGHT:]).mean() for each in (style, refined))
    assert after < 0.7 * before


def test_seconds_of_a_person_have_no_memory_and_forget_an_older_one(models: MotionModels, style: Style) -> None:
    features = sentence(MIN_FRAMES - 1)
    older = with_habits(style, features)
    opening = 5.0 + 4.0 * np.sin(np.arange(len(features)) * 0.7)
    refined = personalised(older, features, mouths(opening.astype(np.float32)), models)
    assert MEMORY not in refined.added
    assert MOMENTS not in refined.added
    assert remembered(pooled_content(windows(features)[0]), refined) is None


def test_a_moment_far_from_all_moments_reminds_of_nothing(models: MotionModels, style: Style) -> None:
    habits = with_habits(style, sentence(300))
    near = remembered(np.append(habits.added[MOMENTS][0], 1.0).astype(np.float32), habits)
    far = remembered(np.full(126, 100.0, np.float32), habits)
    assert near is not None
    assert far is not None
    assert np.abs(far).max() < 1e-6 < np.abs(near).max()
