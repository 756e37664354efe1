"""Personalisation of mouth and head."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float64
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.landmarks import mouth_opening
from services.motion.models import MotionModels
from services.motion.predictors.headpose.grid import HeadposeGrid
from services.motion.predictors.headpose.head_rhythm import general_weights
from services.motion.predictors.headpose.hear import Heard, hear
from services.motion.predictors.headpose.model import CORRECTION, MOUTH
from services.motion.predictors.headpose.personalize import MAX_FRAMES, personalize
from services.motion.predictors.headpose.style import encode_head_style
from services.motion.predictors.registry import added_style_shapes
from services.motion.speech_states import STATES, silence_with_states
from services.motion.style import STYLE_FORMAT, Style
from services.motion.train.evaluate import OFF
from services.motion.types import Footage, SpeechFeatures
from tests.unit.motion.predictors.headpose.person import FRAMES, heard, poses_of, predict, talking
from tests.unit.motion.synthesised import head_poses, mouths


def everything_heard(features: SpeechFeatures, num_frames: int, models: MotionModels) -> Heard:
    steps = hear(features, num_frames, models)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answers: Heard = end.value
            return answers


def test_a_style_makes_a_round_trip(models: MotionModels, person: Style) -> None:
    metadata = {"format": STYLE_FORMAT}
    refined = personalised(models, person, head_poses(FRAMES))
    for each in (person, refined):
        read = Style.from_arrays(
            each.arrays(),
            metadata,
            expected=models.style_shapes,
            added=added_style_shapes(each.arrays(), models),
            field="style",
        )
        assert {name: array.tobytes() for name, array in read.arrays().items()} == {
            name: array.tobytes() for name, array in each.arrays().items()
        }
    with pytest.raises(InvalidRequest, match="pose_mixing"):
        Style.from_arrays(
            person.adding(pose_mixing=np.eye(3, dtype=np.float32)).arrays(),
            metadata,
            expected=models.style_shapes,
            added=added_style_shapes(person.arrays(), models),
            field="style",
        )


def personalised(models: MotionModels, person: Style, poses: Float64) -> Style:
    usable = np.ones(FRAMES, np.bool_)
    steps = list(personalize(person, heard(FRAMES), Footage(talking(), usable, poses), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    return refined


def test_personalising_finds_what_the_speech_tells_of_the_head(models: MotionModels) -> None:
    """Poses that follow a signal of the speech are learned, and nodded on the same speech again."""
    frames = 250
    features, usable = heard(frames), np.ones(frames, np.bool_)
    answers = everything_heard(features, frames, models)
    smooth = np.convolve(answers.signals[:, 9], np.exp(-np.arange(20) / 3.0), mode="full")[:frames]
    poses = head_poses(frames)
    poses[:, 0] = -0.1 + 0.03 * smooth / smooth.std()
    person = encode_head_style(Footage(talking(frames), usable, poses), models)
    refined = list(personalize(person, features, Footage(talking(frames), usable, poses), models))[-1].style
    assert refined is not None
    before, after = (
        np.corrcoef(poses_of(predict(models, each, features))[50:, 0], poses[50:, 0])[0, 1] for each in (person, refined)
    )
    assert after > 0.5
    assert after > before


def test_personalising_is_deterministic_and_leaves_other_methods_alone(models: MotionModels, person: Style) -> None:
    first, second = (personalised(models, person, head_poses(FRAMES)) for _ in range(2))
    assert first.added["pose_weights"].tobytes() == second.added["pose_weights"].tobytes()
    own = ("pose_weights", "pose_steps", CORRECTION)
    for name, array in first.arrays().items():
        assert name in own or array.tobytes() == person.arrays()[name].tobytes()


def test_footage_with_digital_silence_leaves_the_general_head(models: MotionModels, person: Style) -> None:
    """Nothing is heard, so nothing is learned of the head; no signal counts that does not move the general speaker."""
    footage = Footage(talking(), np.ones(FRAMES, np.bool_), head_poses(FRAMES))
    refined = list(personalize(person, silence_with_states(FRAMES), footage, models))[-1].style
    assert refined is not None
    np.testing.assert_array_equal(refined.added["pose_weights"] != 0.0, general_weights() != 0.0)


def test_personalising_needs_a_style_of_the_head_and_two_seconds(models: MotionModels, style: Style, person: Style) -> None:
    usable = np.ones(40, np.bool_)
    with pytest.raises(NoUsableFootage, match="50 usable frames"):
        list(personalize(person, heard(40), Footage(talking(40), usable, head_poses(40)), models))
    with pytest.raises(InvalidRequest, match="how the head moves"):
        list(personalize(style, heard(FRAMES), Footage(talking(), usable, head_poses(FRAMES)), models))


def test_twelve_seconds_are_learned_from_at_most(models: MotionModels, person: Style) -> None:
    frames = MAX_FRAMES + 20
    usable, poses = np.ones(frames, np.bool_), head_poses(frames)
    changed = poses.copy()
    changed[MAX_FRAMES:, :3] += 0.1
    found = [
        list(personalize(person, heard(frames), Footage(talking(frames), usable, each), models))[-1].style
        for each in (poses, changed)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].arrays()["pose_weights"].tobytes() == found[1].arrays()["pose_weights"].tobytes()


def test_the_mouth_of_the_person_is_learned_from_the_states(models: MotionModels, person: Style) -> None:
    """A mouth that opens with a component that the map does not know is predicted on other speech of the person."""
    frames, features = 300, heard(360)
    component = np.convolve(features.extra[STATES][:, 100], np.ones(3) / 1.7, mode="same")
    shown = mouths(np.maximum(8.0 + 5.0 * component, 0.0).astype(np.float32))
    wanted = mouth_opening(shown)[frames : -MOUTH.ahead]
    usable = np.ones(frames, np.bool_)
    style = encode_head_style(Footage(shown[:frames], usable, head_poses(frames)), models)
    refined = list(personalize(style, features[:frames], Footage(shown[:frames], usable, head_poses(frames)), models))[-1].style
    assert refined is not None
    before, after = (
        np.corrcoef(mouth_opening(HeadposeGrid(models, each, OFF).push(features).mouth_landmarks)[frames:], wanted)[0, 1]
        for each in (style, refined)
    )
    assert after > before + 0.4
