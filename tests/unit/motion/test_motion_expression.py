"""The predictor `everybody`: expression basis, stream, constraints, personalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.default_model import default_model
from services.common.landmarks import mouth_opening
from services.common.timeline import Timeline
from services.motion.adapt.personalize_expression import personalize_expression
from services.motion.constraints import ConstraintConfig
from services.motion.expression import expression_basis, expression_spread
from services.motion.expression_window import (
    EXPRESSION_AHEAD,
    EXPRESSION_PAST,
    EXPRESSION_WINDOW,
    NUM_HEARD,
    NUM_POOLED_WINDOW,
    pooled_window,
)
from services.motion.features import silence
from services.motion.grid import AMPLITUDE
from services.motion.models import MotionModels
from services.motion.predict import MotionStream, mean_speaker
from services.motion.predict_expression import ExpressionGrid, expression_stream, heard_clip, silent_speech
from services.motion.style import STYLE_FORMAT, Style
from services.motion.types import Float32, Motion, SpeechFeatures
from tests.unit.motion.synthesised import mouths, random_features, speech, with_identity_removed

PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))
NEVER = ConstraintConfig(
    bilabial_low=2.0, bilabial_high=3.0, speech_low=-2.0, speech_high=-1.0, presence_low=-2.0, presence_high=-1.0
)
"""Constraints that never act."""


def heard(num_frames: int) -> SpeechFeatures:
    return with_identity_removed(random_features(num_frames))


def run(stream: MotionStream, features: SpeechFeatures, cut: int = 1000) -> list[Motion]:
    parts = [stream.push(first, features[first : first + cut]) for first in range(0, len(features), cut)]
    while (part := stream.drain()) is not None:
        parts.append(part)
    return parts


def joined(parts: list[Motion]) -> tuple[np.ndarray, np.ndarray]:
    found = [part.expression for part in parts if part.expression is not None]
    return np.concatenate([part.mouth_landmarks for part in parts]), np.concatenate(found)


def test_the_committed_network_speaks_of_the_committed_face_model(models: MotionModels) -> None:
    face = default_model()
    assert models.expression.face_model == face.digest
    assert models.expression.num_expression == face.num_expression
    expected = expression_basis(face, models.basis, len(models.expression.basis.typical_spread))
    np.testing.assert_allclose(models.expression.basis.components, expected.components)
    np.testing.assert_allclose(models.expression.basis.dual, expected.dual, atol=1e-6)


def test_the_basis_is_the_fit_of_the_face_model_with_the_rest_mouth_as_neutral(models: MotionModels) -> None:
    face = default_model().truncated(expression=24)
    rng = np.random.default_rng(0)
    mean = face.landmark_set("mouth_area").of(face.mean_shape)
    moved = mean + 3.0 * rng.standard_normal((2, 59, 3)).astype(np.float32)
    frontal = WeakPerspective(np.ones(2), np.tile(np.eye(3), (2, 1, 1)), np.zeros((2, 3)))
    no_identity = np.zeros(face.num_identity)
    fitted = coefficients_from_landmarks(face, moved, frontal, landmarks="mouth_area", identity=no_identity)
    found = expression_basis(face, models.basis).project((moved - mean).astype(np.float32))
    np.testing.assert_allclose(found, fitted.expression, atol=1e-3)


def test_a_style_says_how_large_every_expression_is(models: MotionModels) -> None:
    basis = models.expression.basis
    spread = expression_spread(models.basis.typical_spread, models.basis, basis)
    np.testing.assert_allclose(spread, basis.typical_spread, rtol=1e-5)
    np.testing.assert_allclose(expression_spread(2 * models.basis.typical_spread, models.basis, basis), 2 * spread, rtol=1e-5)


@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, style: Style, timeline: Timeline, cut: int) -> None:
    features = heard(40)
    whole, pieces = (joined(run(expression_stream(models, style, timeline), features, size)) for size in (1000, cut))
    for first, second in zip(whole, pieces, strict=True):
        assert first.tobytes() == second.tobytes()


def test_an_answer_comes_four_frames_behind_the_features(models: MotionModels, style: Style) -> None:
    stream, features = expression_stream(models, style, PAL), heard(8)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(8)]
    assert counts == [0] * EXPRESSION_AHEAD + [1] * 4


def test_nothing_outside_its_second_moves_a_frame(models: MotionModels, style: Style) -> None:
    features = heard(50)
    removed = features.identity_removed
    assert removed is not None
    changed = removed.copy()
    changed[35:] += 1.0
    other = replace(features, identity_removed=changed)
    first, second = (joined(run(expression_stream(models, style, PAL), each))[0] for each in (features, other))
    np.testing.assert_array_equal(first[: 35 - EXPRESSION_AHEAD], second[: 35 - EXPRESSION_AHEAD])
    assert not np.array_equal(first[35 - EXPRESSION_AHEAD], second[35 - EXPRESSION_AHEAD])


def test_stream_and_whole_clip_hear_the_same(models: MotionModels, style: Style) -> None:
    features, model = heard(12), models.expression
    rows = heard_clip(features, model.silence)
    basis, spread = model.basis, expression_spread(style.spread, models.basis, model.basis)
    alone = style.rest_mouth + basis.reconstruct(model.predict(rows[5 : 5 + EXPRESSION_WINDOW]) * spread)
    grid = ExpressionGrid(models, style, amplitude=1.0)
    motion = grid.push(features)
    # Of p, b, m and silence there is little in these features at frame 5, whose width no constraint touches.
    np.testing.assert_allclose(motion.mouth_landmarks[5, :, 0], alone[:, 0], atol=1.5)


def test_silence_is_the_closed_mouth(models: MotionModels, style: Style) -> None:
    features = silent_speech(30, models.expression.silence)
    found, _ = joined(run(expression_stream(models, style, PAL), features))
    np.testing.assert_allclose(found, np.broadcast_to(style.closed_mouth, found.shape), atol=1e-5)


def test_lips_close_on_a_bilabial(models: MotionModels, style: Style) -> None:
    features = with_identity_removed(speech(["AA", "M", "AA"], 6))
    found, _ = joined(run(expression_stream(models, style, PAL), features))
    closed = float(mouth_opening(style.closed_mouth[None])[0])
    assert mouth_opening(found[7:11]).min() < closed + 0.5
    assert mouth_opening(found[8:10]).max() < closed + 1.0


def test_expression_and_landmarks_are_one_face(models: MotionModels, style: Style) -> None:
    found, expression = joined(run(expression_stream(models, style, PAL), heard(20)))
    size = len(models.expression.basis.typical_spread)
    assert expression.shape == (20, default_model().num_expression)
    assert not expression[:, size:].any()
    again = style.rest_mouth + models.expression.basis.reconstruct(expression[:, :size])
    assert np.abs(again - found).mean() < 0.6


def test_the_motion_of_ugc_has_no_expression(models: MotionModels, style: Style) -> None:
    assert all(part.expression is None for part in run(MotionStream(models, style, PAL), random_features(10)))


def test_features_without_the_cepstra_are_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequest, match="identity_removed"):
        expression_stream(models, style, PAL).push(0, random_features(3))


def test_without_style_is_another_motion(models: MotionModels, style: Style) -> None:
    features = heard(20)
    full, plain = (joined(run(expression_stream(models, each, PAL), features))[0] for each in (style, mean_speaker(style, models)))
    assert not np.array_equal(full, plain)


def personalised(models: MotionModels, style: Style, truth: Callable[[Float32, Float32], Float32]) -> Style:
    """Style after 120 frames of a person who moves as `truth` makes of predicted coefficients and pooled windows."""
    features, model = heard(120), models.expression
    rows = heard_clip(features, model.silence)
    windows = [rows[frame : frame + EXPRESSION_WINDOW] for frame in range(120)]
    spread = expression_spread(style.spread, models.basis, model.basis)
    wanted = np.stack([truth(model.predict(window), pooled_window(window)) for window in windows])
    shown = style.rest_mouth + model.basis.reconstruct((wanted * spread).astype(np.float32))
    steps = list(personalize_expression(style, features, shown, np.ones(120, np.bool_), models))
    assert [step.style is None for step in steps] == [True] * (len(steps) - 1) + [False]
    refined = steps[-1].style
    assert refined is not None
    assert 0.0 <= steps[-1].loss < 1.0
    return refined


def test_a_correction_is_added_in_units_of_the_spread(models: MotionModels, style: Style) -> None:
    features = heard(20)
    shift = np.linspace(-0.5, 0.5, 24).astype(np.float32)
    correction = np.zeros((24, NUM_POOLED_WINDOW), np.float32)
    correction[:, -1] = shift
    styles = (style, replace(style, expression_correction=correction))
    plain, found = (ExpressionGrid(models, each, NEVER).push(features).mouth_landmarks for each in styles)
    basis = models.expression.basis
    moved = np.float32(AMPLITUDE) * basis.reconstruct(shift * expression_spread(style.spread, models.basis, basis))
    np.testing.assert_allclose(found, plain + moved, atol=1e-4)


def test_what_is_pooled_is_the_sound_about_the_frame() -> None:
    window = np.zeros((EXPRESSION_WINDOW, 4, NUM_HEARD), np.float32)
    window[EXPRESSION_PAST + 2, :, 7] = 1.0
    pooled = pooled_window(window)
    assert pooled.shape == (NUM_POOLED_WINDOW,)
    assert pooled[-1] == 1.0
    by_gaussian = pooled[:-1].reshape(-1, NUM_HEARD)
    assert not np.delete(by_gaussian, 7, axis=1).any()
    assert by_gaussian[:, 7].argmax() == len(by_gaussian) - 1


def test_personalising_leaves_other_methods_alone(models: MotionModels, style: Style) -> None:
    refined = personalised(models, style, lambda predicted, _pooled: 0.6 * predicted)
    assert set(refined.arrays()) - set(style.arrays()) == {"expression_correction"}
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(refined.arrays()[name], array)


def test_a_personalised_style_makes_a_round_trip(models: MotionModels, style: Style) -> None:
    refined = personalised(models, style, lambda predicted, _pooled: 0.6 * predicted)
    metadata = {"format": STYLE_FORMAT}
    read: Callable[[Style], Style] = lambda each: Style.from_arrays(  # noqa: E731
        each.arrays(),
        metadata,
        expected=models.style_shapes,
        optional=models.optional_style_shapes(each.arrays()),
        field="style",
    )
    np.testing.assert_array_equal(read(refined).expression_correction, refined.expression_correction)
    assert read(style).expression_correction is None
    with pytest.raises(InvalidRequest, match="expression_correction"):
        read(replace(refined, expression_correction=np.ones((3, 5), np.float32)))
    with pytest.raises(InvalidRequest, match="expression_correction"):
        read(replace(refined, expression_correction=np.full((24, NUM_POOLED_WINDOW), np.nan, np.float32)))


def test_too_little_footage_is_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(NoUsableFootage):
        list(personalize_expression(style, heard(30), mouths(np.ones(30, np.float32)), np.ones(30, np.bool_), models))


def test_joined_features_lose_the_cepstra_where_a_part_has_none() -> None:
    assert SpeechFeatures.joined([heard(3), silence(2)]).identity_removed is None
    both = SpeechFeatures.joined([heard(3), heard(2)]).identity_removed
    assert both is not None
    assert both.shape == (5, 4, 20)
