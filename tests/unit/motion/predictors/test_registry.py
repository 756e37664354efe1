"""The rows of the predictors against their code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from services.common.array_types import Array
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.methods import PREDICTORS, MouthOptions
from services.common.wire.phones import PHONES
from services.common.wire.timeline import Timeline
from services.motion.constraints import LIVE, WHOLE, ConstraintConfig
from services.motion.head_network import STYLE_ARRAYS
from services.motion.models import MotionModels
from services.motion.person_predictor import LARGEST_OPENING
from services.motion.predictor import Predictor, StyleStep
from services.motion.predictors.registry import added_style_shapes, all_predictors, predictor_named
from services.motion.speech_map import SpeechMapModel
from services.motion.stream import MotionStream
from services.motion.style import FASTEST_STEP, RESTING_MOUTH, STYLE_FORMAT, WIDEST_OPENING, Style
from services.motion.types import EXTRA_FEATURES, Footage, SpeechFeatures
from tests.refusals import raised
from tests.unit.motion.streams import NTSC, PAL, run
from tests.unit.motion.synthesised import head_poses, mouths, random_features, with_identity_removed, with_states

FRAMES = 60
UNEVEN = Timeline(pts=np.cumsum(np.random.default_rng(0).integers(20, 60, 40)), time_base=Fraction(1, 1000))
ARRAYS_OF_MOTION = ("mouth_landmarks", "speech_probability", "expression", "poses", "blink")
OPEN_IN_SILENCE = replace(WHOLE, pause=1000, quiet_pause=1000, presence_low=-1.0, presence_high=-0.5)
"""Constraints that let the mouth do in silence what is predicted."""


@pytest.fixture(scope="module", params=sorted(PREDICTORS))
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return predictor_named(request.param)


@pytest.fixture(scope="module")
def footage() -> Footage:
    opening = 5.0 + 4.0 * np.sin(np.arange(FRAMES) * 0.7)
    return Footage(mouths(opening.astype(np.float32)), np.ones(FRAMES, np.bool_), head_poses(FRAMES))


def heard(predictor: Predictor, num_frames: int) -> SpeechFeatures:
    """Features with no other tensors than those that the predictor declares."""
    features = random_features(num_frames)
    if "identity_removed" in predictor.spec.tensors:
        features = with_identity_removed(features)
    states = [name for name in predictor.spec.tensors if name.startswith("speech_states")]
    return with_states(features, *states) if states else features


def refined(predictor: Predictor, footage: Footage, models: MotionModels) -> Style:
    style = predictor.encode_style(footage, models)
    steps: list[StyleStep] = list(predictor.personalize(style, heard(predictor, FRAMES), footage, models))
    assert [step.index for step in steps] == sorted({step.index for step in steps})
    assert steps[-1].index == steps[-1].count
    last = steps[-1].style
    assert last is not None
    return last


@pytest.fixture(scope="module")
def personal(predictor: Predictor, footage: Footage, models: MotionModels) -> Style:
    return refined(predictor, footage, models)


def test_a_predictor_is_found_by_its_own_name(predictor: Predictor) -> None:
    assert predictor_named(predictor.spec.name, "method") is predictor


@pytest.mark.parametrize("name", ["", "unknown", "x" * 1000])
def test_unknown_predictor_lists_names(name: str) -> None:
    """A name that is not there is refused with the names that are."""
    with raised(InvalidRequestError, match="has no predictor", field="config.method") as caught:
        predictor_named(name, "config.method")
    assert all(known in caught.value.message for known in PREDICTORS)
    assert len(caught.value.message) < 300


def test_a_predictor_hears_tensors_that_there_are(predictor: Predictor) -> None:
    assert {"mel", "posteriorgram"} <= set(predictor.spec.tensors) <= {"mel", "posteriorgram", *EXTRA_FEATURES}


def test_frame_waits_declared_look_ahead(predictor: Predictor, footage: Footage, models: MotionModels) -> None:
    """A frame waits for as many frames as declared."""
    opened = predictor.open(models, predictor.encode_style(footage, models), None)
    num_frames = predictor.spec.frames_ahead + 4
    features = heard(predictor, num_frames)
    counts = [len(opened.push(features[frame : frame + 1]).mouth_landmarks) for frame in range(num_frames)]
    assert counts == [0] * predictor.spec.frames_ahead + [1] * 4


def test_chosen_look_ahead_is_waited(predictor: Predictor, footage: Footage, models: MotionModels) -> None:
    """A predictor opens with each look-ahead that its row declares, and a frame waits for that many frames."""
    assert tuple(predictor.open_ahead) == predictor.spec.look_ahead_choices
    style = predictor.encode_style(footage, models)
    for ahead, opener in predictor.open_ahead.items():
        features, opened = heard(predictor, ahead + 3), opener(models, style, None)
        counts = [len(opened.push(features[frame : frame + 1]).mouth_landmarks) for frame in range(ahead + 3)]
        assert counts == [0] * ahead + [1] * 3


@pytest.mark.parametrize("timeline", [PAL, NTSC, UNEVEN], ids=["25", "29.97", "uneven"])
@pytest.mark.parametrize("constraints", [LIVE, WHOLE], ids=["live", "whole"])
def test_other_pieces_give_the_same_bytes(
    predictor: Predictor, personal: Style, models: MotionModels, timeline: Timeline, constraints: ConstraintConfig
) -> None:
    """Speech that comes in pieces of 1 or 7 frames moves a personalised face as speech in one piece does."""
    features = heard(predictor, 45)

    def moved(cut: int) -> dict[str, bytes]:
        parts = run(MotionStream(predictor.open(models, personal, constraints), timeline), features, cut)
        arrays = {name: [getattr(part, name) for part in parts] for name in ARRAYS_OF_MOTION}
        return {name: b"".join(each.tobytes() for each in found if each is not None) for name, found in arrays.items()}

    whole = moved(1000)
    assert whole["mouth_landmarks"]
    assert bool(whole["poses"]) == predictor.spec.moves_head
    assert moved(1) == moved(7) == whole


def test_poses_are_answered_as_declared(predictor: Predictor, footage: Footage, models: MotionModels) -> None:
    opened = predictor.open(models, predictor.encode_style(footage, models), None)
    motion = opened.push(heard(predictor, 8))
    assert (motion.poses is not None) == (motion.blink is not None) == predictor.spec.moves_head


def test_a_style_gets_arrays_that_are_declared(predictor: Predictor, personal: Style, models: MotionModels) -> None:
    # An array may be left out: `ugc` adds its memory only to footage that is long enough.
    assert WIDEST_OPENING in personal.added
    own = set(personal.added) - {WIDEST_OPENING, FASTEST_STEP, RESTING_MOUTH}
    assert own <= set(predictor.style_arrays)
    assert bool(own) == bool(predictor.style_arrays)
    assert {name: array.shape for name, array in personal.added.items()} == added_style_shapes(personal.added, models)
    assert {array.dtype for array in personal.arrays().values()} == {np.dtype(np.float32)}


def test_personalised_style_makes_round_trip(predictor: Predictor, personal: Style, models: MotionModels) -> None:
    """A style of an artefact has all arrays. Arrays of a wrong shape and numbers that are none are refused by name."""

    def read(arrays: Mapping[str, Array]) -> dict[str, bytes]:
        declared = added_style_shapes(arrays, models)
        found = Style.from_arrays(arrays, {"format": STYLE_FORMAT}, expected=models.style_shapes, added=declared, field="style")
        return {name: array.tobytes() for name, array in found.arrays().items()}

    assert read(personal.arrays()) == {name: array.tobytes() for name, array in personal.arrays().items()}
    for name in personal.added:
        for wrong in (np.ones((3, 5), np.float32), np.full_like(personal.added[name], np.nan)):
            with pytest.raises(InvalidRequestError, match=name):
                read({**personal.arrays(), name: wrong})


def test_personalising_leaves_other_methods_alone(predictor: Predictor, footage: Footage, models: MotionModels) -> None:
    style = predictor.encode_style(footage, models).adding(somebody_elses=np.ones((3, 5), np.float32))
    *_, last = predictor.personalize(style, heard(predictor, FRAMES), footage, models)
    assert last.style is not None
    for name, array in style.arrays().items():
        assert name in predictor.style_arrays or last.style.arrays()[name].tobytes() == array.tobytes()


def test_style_works_for_all_predictors(footage: Footage, models: MotionModels) -> None:
    """Live speech takes the correction that was learned from files, under the same name."""
    own = {each.spec.name: each for each in all_predictors() if each.spec.name != "dubstage_live"}
    alone = {name: refined(each, footage, models) for name, each in own.items()}
    style = own["headpose"].encode_style(footage, models)
    for each in own.values():
        *_, last = each.personalize(style, heard(each, FRAMES), footage, models)
        assert last.style is not None
        style = last.style
    for name, each in own.items():
        found, expected = (
            each.open(models, which, None).push(heard(each, 12)).mouth_landmarks.tobytes() for which in (style, alone[name])
        )
        assert found == expected


def test_predictors_share_the_head_alone() -> None:
    """Predictors share no array but those of the head, which `headpose` and `portrait` move alike."""
    own = [predictor for predictor in all_predictors() if predictor.spec.name != "dubstage_live"]
    names = [name for predictor in own for name in predictor.style_arrays if name not in STYLE_ARRAYS]
    assert len(names) == len(set(names))


def test_long_silence_without_correction(predictor: Predictor, personal: Style, footage: Footage, models: MotionModels) -> None:
    """A long silence is predicted without the correction of the person."""
    spoken = heard(predictor, FRAMES)
    plain = predictor.encode_style(footage, models)

    def said(style: Style) -> np.ndarray:
        opened = predictor.open(models, style, OPEN_IN_SILENCE)
        return np.concatenate([opened.push(spoken).mouth_landmarks, opened.push_silence(60).mouth_landmarks])[: FRAMES + 40]

    with_correction, without = said(personal), said(plain)
    if set(personal.added) - set(plain.added):
        assert np.abs(with_correction - without)[:FRAMES].max() > 0.5
    np.testing.assert_allclose(with_correction[FRAMES + 2 :], without[FRAMES + 2 :], atol=1e-4)


def with_closed_lips(features: SpeechFeatures, frames: slice, models: MotionModels) -> SpeechFeatures:
    """The features with closed lips in some frames, by a sure M and by states, and with open lips in all others."""
    phones = features.posteriorgram.copy()
    phones[frames] = 0.0
    phones[frames, :, PHONES.index("M")] = 1.0
    extra = {name: values.copy() for name, values in features.extra.items()}
    for hearing, each in SpeechMapModel.of(models).maps.items():
        # One predictor hears one map. A file holds states of one kind for all maps of live speech, so the longest one decides.
        if (name := hearing.feature) in extra:
            own = each.closed_weight.reshape(each.input_window.width, -1).sum(axis=0)
            extra[name] -= 0.5 * own / float(own @ own)
            extra[name][frames] = 20.0 * own / float(own @ own)
    return replace(features, posteriorgram=phones, extra=extra)


def expressed(
    predictor: Predictor, style: Style, models: MotionModels, features: SpeechFeatures, value: float | None
) -> np.ndarray:
    """Mouths of a stream in pieces of 7 frames, and of 40 frames of the silence after them. None: the option is not set."""
    opened = predictor.open(models, style, WHOLE)
    if value is not None:
        opened.options = MouthOptions(expressiveness=value)
    parts = [opened.push(features[first : first + 7]).mouth_landmarks for first in range(0, len(features), 7)]
    return np.concatenate([*parts, opened.push_silence(60).mouth_landmarks])[: len(features) + 40]


def test_expressiveness_grows_spread(predictor: Predictor, personal: Style, models: MotionModels) -> None:
    """The spread of the opening grows with the expressiveness and closures stay."""
    features = with_closed_lips(heard(predictor, FRAMES), slice(30, 36), models)
    assert expressed(predictor, personal, models, features, None).tobytes() == (
        expressed(predictor, personal, models, features, 1.0).tobytes()
    )
    spreads = []
    for value in (0.5, 0.75, 1.0, 1.25, 1.5):
        moved = expressed(predictor, personal, models, features, value)
        opening = mouth_opening(moved)
        spreads.append(float(opening[:FRAMES].std()))
        assert opening[32:34].max() < 0.5
        np.testing.assert_allclose(moved[-5:], np.broadcast_to(personal.closed_mouth, moved[-5:].shape), atol=1e-3)
        assert opening.max() <= LARGEST_OPENING * personal.added[WIDEST_OPENING][0] + 1e-3
    assert all(more > less * 1.02 for less, more in pairwise(spreads)), spreads
