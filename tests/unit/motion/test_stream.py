"""Motion on output timelines."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError, WorkCancelledError
from services.common.server.call_context import Call, set_current_call
from services.common.wire.timeline import Timeline, catmull_rom, sampled
from services.motion.models import MotionModels
from services.motion.predictors.ugc.predictor import UgcPredictor
from services.motion.stream import MAX_FRAMES_AT_ONCE, MotionStream, grid_position
from services.motion.style import Style
from services.motion.types import Motion, SpeechFeatures
from tests.refusals import raised
from tests.unit.motion.streams import NTSC, PAL, mouths_of, run
from tests.unit.motion.synthesised import random_features


@pytest.mark.parametrize(
    ("seconds", "index", "fraction"), [("0", 0, "0"), ("1/30", 0, "5/6"), ("7/25", 7, "0"), ("-1/50", -1, "1/2")]
)
def test_position_on_the_grid_is_exact(seconds: str, index: int, fraction: str) -> None:
    at = grid_position(Fraction(seconds))
    assert (at.index, at.fraction) == (index, Fraction(fraction))


def test_times_on_the_grid_need_no_frame_ahead() -> None:
    assert grid_position(Fraction(3, 25)).last_needed == 3
    assert grid_position(Fraction(7, 50)).last_needed == 5


def test_catmull_rom_keeps_straight_lines_and_its_knots() -> None:
    def curve(before: float, left: float, right: float, after: float, fraction: float) -> float:
        points = [np.array([value], np.float32) for value in (before, left, right, after)]
        return float(catmull_rom(points[0], points[1], points[2], points[3], fraction)[0])

    assert curve(1.0, 2.0, 3.0, 4.0, 0.25) == pytest.approx(2.25)
    assert curve(0.0, 5.0, -3.0, 8.0, 0.0) == pytest.approx(5.0)
    assert curve(0.0, 5.0, -3.0, 8.0, 1.0) == pytest.approx(-3.0)


@pytest.mark.parametrize("fraction", [-0.5, -0.25, 0.25, 0.5])
def test_frames_are_sampled_between_their_times(fraction: float) -> None:
    times = np.arange(40, dtype=np.float32)
    frames = np.stack([np.sin(0.3 * times), 2.0 * times], axis=1)
    between = np.stack([np.sin(0.3 * (times + fraction)), 2.0 * (times + fraction)], axis=1)
    np.testing.assert_allclose(sampled(frames, fraction)[2:-2], between[2:-2], atol=2e-3)
    assert sampled(frames, 0.0) is frames


def test_beyond_either_end_the_last_frame_stays() -> None:
    frames = np.array([[1.0], [1.0], [4.0], [4.0]], np.float32)
    assert sampled(frames, -0.5)[0] == pytest.approx(1.0)
    assert sampled(frames, 0.5)[-1] == pytest.approx(4.0)


def moved(
    models: MotionModels, style: Style, features: SpeechFeatures, timeline: Timeline, *, cut: int = 1000, num_frames: int = 0
) -> Float32:
    return mouths_of(MotionStream(UgcPredictor(models, style), timeline, num_frames), features, cut)


@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, style: Style, timeline: Timeline, cut: int) -> None:
    features = random_features(45)
    whole, pieces = (moved(models, style, features, timeline, cut=size) for size in (1000, cut))
    np.testing.assert_array_equal(whole, pieces)


def test_frames_follow_each_other_without_gap(models: MotionModels, style: Style) -> None:
    answers = run(MotionStream(UgcPredictor(models, style), NTSC), random_features(30), 4)
    parts = [part for part in answers if len(part.mouth_landmarks)]
    assert parts[0].first_frame == 0
    for before, after in zip(parts, parts[1:], strict=False):
        assert after.first_frame == before.first_frame + len(before.mouth_landmarks)


@pytest.mark.parametrize(("timeline", "expected"), [(PAL, 20), (NTSC, 24), (Timeline(rate=Fraction(10)), 8)])
def test_as_many_frames_as_the_features_cover(models: MotionModels, style: Style, timeline: Timeline, expected: int) -> None:
    assert len(moved(models, style, random_features(20), timeline)) == expected


def test_as_many_frames_as_asked_for(models: MotionModels, style: Style) -> None:
    for count in (5, 33):
        assert len(moved(models, style, random_features(20), PAL, num_frames=count)) == count


def test_explicit_times_with_a_gap_are_answered(models: MotionModels, style: Style) -> None:
    pts = np.array([0, 33, 67, 100, 1500, 1533], np.int64)
    timeline = Timeline(pts=pts, time_base=Fraction(1, 1000))
    result = moved(models, style, random_features(20), timeline, num_frames=6)
    assert len(result) == 6
    on_grid = moved(models, style, random_features(20), PAL)
    np.testing.assert_array_equal(result[0], on_grid[0])


@pytest.mark.parametrize("cut", [1, 30])
def test_before_first_frame(models: MotionModels, style: Style, cut: int) -> None:
    """Times before the first frame get the first frame."""
    timeline = Timeline(pts=np.arange(-2, 3), time_base=Fraction(1, 25))
    found = moved(models, style, random_features(30), timeline, cut=cut)
    assert len(found) == 5
    for early in found[:2]:
        np.testing.assert_array_equal(early, found[2])


def test_beyond_end_silence_shut(models: MotionModels, style: Style) -> None:
    """Speech behind the end is silence with the mouth shut."""
    result = moved(models, style, random_features(20), PAL, num_frames=52)
    np.testing.assert_allclose(result[45:], np.repeat(style.closed_mouth[None], 7, axis=0), atol=1e-4)


def test_features_out_of_order_are_refused(models: MotionModels, style: Style) -> None:
    stream = MotionStream(UgcPredictor(models, style), PAL)
    stream.push(0, random_features(3))
    with raised(InvalidRequestError, match="frame 3 was due", field="features.first_frame"):
        stream.push(4, random_features(3))


def test_more_frames_than_the_timeline_has_are_refused(models: MotionModels, style: Style) -> None:
    timeline = Timeline(pts=np.arange(5), time_base=Fraction(1, 25))
    with pytest.raises(InvalidRequestError, match="6 frames asked for"):
        MotionStream(UgcPredictor(models, style), timeline, 6)


def test_gap_leaves_nothing(models: MotionModels, style: Style) -> None:
    """Nothing of a gap in the times is kept."""
    late = Timeline(pts=np.array([0, 40], np.int64))
    stream = MotionStream(UgcPredictor(models, style), late, 2)
    stream.push(0, random_features(4))
    held = 0
    parts = []
    predictor, keep = stream._predictor, stream._keep

    def counted(motion: Motion) -> None:
        nonlocal held
        keep(motion)
        held = max(held, len(stream._frames))

    stream._keep = counted  # type: ignore[method-assign]
    while (part := stream.drain()) is not None:
        parts.append(part)
    assert predictor.num_features == 4
    assert sum(len(part.mouth_landmarks) for part in parts) == 1
    assert held < 100, "a second of motion at most, not the 40 s of the gap"


def test_high_frame_rate_streams(models: MotionModels, style: Style) -> None:
    """Motion of more frames a second than features is answered as it is ready."""
    stream = MotionStream(UgcPredictor(models, style), Timeline(rate=Fraction(1000)))
    parts = [stream.push(0, random_features(20))]
    while len(parts[-1].mouth_landmarks):
        parts.append(stream.ready())
    assert sum(len(part.mouth_landmarks) for part in parts) > 600
    assert max(len(part.mouth_landmarks) for part in parts) == MAX_FRAMES_AT_ONCE
    assert len(stream._frames) < 8


@pytest.mark.parametrize("stream", ["push", "drain"])
def test_motion_ends_with_call(models: MotionModels, style: Style, stream: str) -> None:
    """Motion ends with the call that it is made for."""
    call = Call(stage="motion", rpc="PredictMotion")
    made = MotionStream(UgcPredictor(models, style), PAL, 1000)
    if stream == "drain":
        made.push(0, random_features(4))
    set_current_call(call)
    call.ended.set()
    try:
        with pytest.raises(WorkCancelledError):
            _ = made.push(0, random_features(9)) if stream == "push" else list(iter(made.drain, None))
    finally:
        set_current_call(None)
