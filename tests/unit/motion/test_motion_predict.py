from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from services.common.calls import Call, set_current_call
from services.common.errors import Cancelled, InvalidRequest
from services.common.landmarks import mouth_opening
from services.common.timeline import Timeline
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.pooled_speech import NUM_POOLED
from services.motion.predict import MAX_FRAMES_AT_ONCE, MotionStream, mean_speaker
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures
from tests.unit.motion.synthesised import random_features, speech

PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))


def run(
    models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline, *, cut: int = 1000, num_frames: int = 0
) -> list[Motion]:
    stream = MotionStream(models, style, timeline, num_frames)
    parts = [stream.push(first, features[first : first + cut]) for first in range(0, len(features), cut)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


@pytest.fixture(scope="module")
def personal(style: Style) -> Style:
    correction = np.random.default_rng(3).normal(0.0, 0.2, (len(style.spread), NUM_POOLED))
    return replace(style, landmark_correction=correction.astype(np.float32))


def joined(parts: list[Motion]) -> np.ndarray:
    return np.concatenate([part.mouth_landmarks for part in parts])


@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, style: Style, timeline: Timeline, cut: int) -> None:
    features = random_features(45)
    whole, pieces = (joined(run(models, style, features, timeline, cut=size)) for size in (1000, cut))
    np.testing.assert_array_equal(whole, pieces)


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
    assert personal.landmark_correction is not None
    nothing = replace(personal, landmark_correction=np.zeros_like(personal.landmark_correction))
    plain, same = (joined(run(models, each, features, PAL)) for each in (style, nothing))
    np.testing.assert_array_equal(plain, same)


def test_silence_stays_shut_for_who_is_personalised(models: MotionModels, personal: Style) -> None:
    found = joined(run(models, personal, silence(50), PAL))
    np.testing.assert_allclose(found, np.broadcast_to(personal.closed_mouth, found.shape), atol=1e-4)


def test_frames_follow_each_other_without_gap(models: MotionModels, style: Style) -> None:
    parts = [p for p in run(models, style, random_features(30), NTSC, cut=4) if len(p.mouth_landmarks)]
    assert parts[0].first_frame == 0
    for before, after in zip(parts, parts[1:], strict=False):
        assert after.first_frame == before.first_frame + len(before.mouth_landmarks)


def test_answer_comes_two_frames_behind_the_features(models: MotionModels, style: Style) -> None:
    stream = MotionStream(models, style, PAL)
    counts = [len(stream.push(n, random_features(10)[n : n + 1]).mouth_landmarks) for n in range(10)]
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("timeline", "expected"), [(PAL, 20), (NTSC, 24), (Timeline(rate=Fraction(10)), 8)])
def test_as_many_frames_as_the_features_cover(models: MotionModels, style: Style, timeline: Timeline, expected: int) -> None:
    assert len(joined(run(models, style, random_features(20), timeline))) == expected


def test_as_many_frames_as_asked_for(models: MotionModels, style: Style) -> None:
    for count in (5, 33):
        assert len(joined(run(models, style, random_features(20), PAL, num_frames=count))) == count


def test_explicit_times_with_a_gap_are_answered(models: MotionModels, style: Style) -> None:
    pts = np.array([0, 33, 67, 100, 1500, 1533], np.int64)
    timeline = Timeline(pts=pts, time_base=Fraction(1, 1000))
    result = run(models, style, random_features(20), timeline, num_frames=6)
    assert len(joined(result)) == 6
    on_grid = joined(run(models, style, random_features(20), PAL))
    np.testing.assert_array_equal(joined(result)[0], on_grid[0])


def test_speech_behind_the_end_is_silence_with_the_mouth_shut(models: MotionModels, style: Style) -> None:
    result = joined(run(models, style, random_features(20), PAL, num_frames=40))
    np.testing.assert_allclose(result[28:], np.repeat(style.closed_mouth[None], 12, axis=0), atol=1e-4)


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
    plain = mean_speaker(style, models)
    np.testing.assert_array_equal(plain.mean_mouth, style.mean_mouth)
    features = random_features(12)
    assert not np.array_equal(joined(run(models, plain, features, PAL)), joined(run(models, style, features, PAL)))
    np.testing.assert_array_equal(
        joined(run(models, mean_speaker(personal, models), features, PAL)), joined(run(models, plain, features, PAL))
    )


def test_features_out_of_order_are_refused(models: MotionModels, style: Style) -> None:
    stream = MotionStream(models, style, PAL)
    stream.push(0, random_features(3))
    with pytest.raises(InvalidRequest, match="frame 3 was due") as caught:
        stream.push(4, random_features(3))
    assert caught.value.field == "features.first_frame"


def test_more_frames_than_the_timeline_has_are_refused(models: MotionModels, style: Style) -> None:
    timeline = Timeline(pts=np.arange(5), time_base=Fraction(1, 25))
    with pytest.raises(InvalidRequest, match="6 frames asked for"):
        MotionStream(models, style, timeline, 6)


def test_nothing_of_a_gap_in_the_times_is_kept(models: MotionModels, style: Style) -> None:
    late = Timeline(pts=np.array([0, 120], np.int64))
    stream = MotionStream(models, style, late, 2)
    stream.push(0, random_features(4))
    held = 0
    parts = []
    grid, keep = stream._grid, stream._keep

    def counted(motion: Motion) -> None:
        nonlocal held
        keep(motion)
        held = max(held, len(stream._frames))

    stream._keep = counted  # type: ignore[method-assign]
    while (part := stream.drain()) is not None:
        parts.append(part)
    assert grid.num_features == 4
    assert sum(len(part.mouth_landmarks) for part in parts) == 1
    assert held < 100, "a second of motion at most, not the two minutes of the gap"


def test_motion_of_more_frames_a_second_than_features_is_answered_as_it_is_ready(models: MotionModels, style: Style) -> None:
    stream = MotionStream(models, style, Timeline(rate=Fraction(1000)))
    parts = [stream.push(0, random_features(20))]
    while len(parts[-1].mouth_landmarks):
        parts.append(stream.ready())
    assert sum(len(part.mouth_landmarks) for part in parts) > 600
    assert max(len(part.mouth_landmarks) for part in parts) == MAX_FRAMES_AT_ONCE
    assert len(stream._frames) < 8


@pytest.mark.parametrize("stream", ["push", "drain"])
def test_motion_ends_with_the_call_that_it_is_made_for(models: MotionModels, style: Style, stream: str) -> None:
    call = Call(stage="motion", rpc="PredictMotion")
    made = MotionStream(models, style, PAL, 1000)
    if stream == "drain":
        made.push(0, random_features(4))
    set_current_call(call)
    call.ended.set()
    try:
        with pytest.raises(Cancelled):
            _ = made.push(0, random_features(9)) if stream == "push" else list(iter(made.drain, None))
    finally:
        set_current_call(None)
