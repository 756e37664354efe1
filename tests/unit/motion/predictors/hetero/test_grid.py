"""Motion of the landmark generator on output timelines."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.landmarks import mouth_opening
from services.common.wire.timeline import Timeline
from services.motion.grid import AMPLITUDE
from services.motion.models import MotionModels
from services.motion.predictors.hetero.grid import CORRECTION, HeteroGrid
from services.motion.predictors.hetero.inputs import WINDOW_AHEAD
from services.motion.predictors.hetero.style import REFERENCE
from services.motion.speech_map import SpeechMapModel
from services.motion.speech_states import NUM_POOLED_STATES, STATES, silence_with_states
from services.motion.stream import MotionStream
from services.motion.style import Style
from services.motion.train.evaluate import OFF
from services.motion.types import SpeechFeatures
from tests.unit.motion.streams import NTSC, PAL, run
from tests.unit.motion.synthesised import random_features, with_closed_lips, with_states


def heard(num_frames: int, seed: int = 0) -> SpeechFeatures:
    return with_states(random_features(num_frames, seed), STATES, seed=seed)


def moved(models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline = PAL, cut: int = 1000) -> np.ndarray:
    parts = run(MotionStream(HeteroGrid(models, style), timeline), features, cut)
    return np.concatenate([part.mouth_landmarks for part in parts])


@pytest.fixture(scope="module")
def personal(person: Style) -> Style:
    correction = np.random.default_rng(3).normal(0.0, 0.2, (len(person.spread), NUM_POOLED_STATES))
    return person.adding(**{CORRECTION: correction.astype(np.float32)})


@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, personal: Style, timeline: Timeline, cut: int) -> None:
    features = heard(45)
    whole, pieces = (moved(models, personal, features, timeline, size) for size in (1000, cut))
    assert whole.tobytes() == pieces.tobytes()


def test_an_answer_comes_five_frames_behind_the_features(models: MotionModels, person: Style) -> None:
    stream, features = MotionStream(HeteroGrid(models, person), PAL), heard(9)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(9)]
    assert counts == [0] * WINDOW_AHEAD + [1] * 4


def test_nothing_later_than_the_look_ahead_moves_a_frame(models: MotionModels, person: Style) -> None:
    features, other = heard(50), heard(50, seed=1)
    mixed = SpeechFeatures.joined([features[:35], other[35:]])
    first, second = (moved(models, person, each) for each in (features, mixed))
    np.testing.assert_array_equal(first[: 35 - WINDOW_AHEAD], second[: 35 - WINDOW_AHEAD])
    assert not np.array_equal(first[35 - WINDOW_AHEAD :], second[35 - WINDOW_AHEAD :])


def test_the_reference_changes_the_motion(models: MotionModels, person: Style) -> None:
    features = heard(20)
    other = person.adding(**{REFERENCE: -person.added[REFERENCE]})
    assert not np.array_equal(moved(models, person, features), moved(models, other, features))


def test_silence_is_the_closed_mouth(models: MotionModels, personal: Style) -> None:
    found = moved(models, personal, silence_with_states(40))
    np.testing.assert_allclose(found, np.broadcast_to(personal.closed_mouth, found.shape), atol=1e-4)


def test_lips_close_where_the_encoder_hears_closed_lips(models: MotionModels, person: Style) -> None:
    features = with_closed_lips(heard(20), SpeechMapModel.of(models).maps[STATES], [9])
    found = mouth_opening(moved(models, person, features))
    assert found[9] < float(mouth_opening(person.closed_mouth)) + 1.0
    assert found.max() > found[9] + 1.0


def test_a_correction_is_added_in_units_of_the_spread(models: MotionModels, person: Style) -> None:
    features = heard(20)
    shift = np.linspace(-0.5, 0.5, len(person.spread)).astype(np.float32)
    correction = np.zeros((len(shift), NUM_POOLED_STATES), np.float32)
    correction[:, -1] = shift
    styles = (person, person.adding(**{CORRECTION: correction}))
    plain, found = (HeteroGrid(models, each, OFF).push(features).mouth_landmarks for each in styles)
    np.testing.assert_allclose(found, plain + np.float32(AMPLITUDE) * models.basis.reconstruct(shift * person.spread), atol=1e-4)
