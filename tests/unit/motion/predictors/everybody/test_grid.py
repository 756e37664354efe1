"""Motion with expression on output timelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.landmarks import mouth_opening
from services.common.geometry.default_model import default_model
from services.common.wire.timeline import Timeline
from services.motion.expression import expression_spread
from services.motion.grid import AMPLITUDE, amplified
from services.motion.models import MotionModels
from services.motion.predictors.everybody.grid import CORRECTION, EverybodyGrid
from services.motion.predictors.everybody.inputs import FEATURE, NUM_POOLED_WINDOW, WINDOW, WINDOW_AHEAD, heard_clip, silent_speech
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.style import Style
from tests.unit.motion.predictors.everybody.person import NEVER, heard, joined, opened
from tests.unit.motion.streams import NTSC, PAL, run
from tests.unit.motion.synthesised import random_features, speech, with_identity_removed


@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(models: MotionModels, style: Style, timeline: Timeline, cut: int) -> None:
    features = heard(40)
    whole, pieces = (joined(run(opened(models, style, timeline), features, size)) for size in (1000, cut))
    for first, second in zip(whole, pieces, strict=True):
        assert first.tobytes() == second.tobytes()


def test_an_answer_comes_four_frames_behind_the_features(models: MotionModels, style: Style) -> None:
    stream, features = opened(models, style, PAL), heard(8)
    counts = [len(stream.push(n, features[n : n + 1]).mouth_landmarks) for n in range(8)]
    assert counts == [0] * WINDOW_AHEAD + [1] * 4


def test_nothing_outside_its_second_moves_a_frame(models: MotionModels, style: Style) -> None:
    features = heard(50)
    changed = features.extra[FEATURE].copy()
    changed[35:] += 1.0
    other = replace(features, extra={FEATURE: changed})
    first, second = (joined(run(opened(models, style, PAL), each))[0] for each in (features, other))
    np.testing.assert_array_equal(first[: 35 - WINDOW_AHEAD], second[: 35 - WINDOW_AHEAD])
    assert not np.array_equal(first[35 - WINDOW_AHEAD], second[35 - WINDOW_AHEAD])


def test_stream_and_whole_clip_hear_the_same(models: MotionModels, style: Style) -> None:
    features, model = heard(12), EverybodyModel.of(models)
    rows = heard_clip(features, model.silence)
    basis, spread = model.basis, expression_spread(style.spread, models.basis, model.basis)
    full_size = style.rest_mouth + basis.reconstruct(model.predict(rows[5 : 5 + WINDOW]) * spread)
    alone = amplified(full_size, style)
    grid = EverybodyGrid(models, style)
    motion = grid.push(features)
    # Of p, b, m and silence there is little in these features at frame 5, whose width no constraint touches.
    np.testing.assert_allclose(motion.mouth_landmarks[5, :, 0], alone[:, 0], atol=1.5)


def test_silence_is_the_closed_mouth(models: MotionModels, style: Style) -> None:
    features = silent_speech(30, EverybodyModel.of(models).silence)
    found, _ = joined(run(opened(models, style, PAL), features))
    np.testing.assert_allclose(found, np.broadcast_to(style.closed_mouth, found.shape), atol=1e-5)


def test_lips_close_on_a_bilabial(models: MotionModels, style: Style) -> None:
    features = with_identity_removed(speech(["AA", "M", "AA"], 6))
    found, _ = joined(run(opened(models, style, PAL), features))
    closed = float(mouth_opening(style.closed_mouth[None])[0])
    assert mouth_opening(found[7:11]).min() < closed + 0.5
    assert mouth_opening(found[8:10]).max() < closed + 1.0


def test_expression_and_landmarks_are_one_face(models: MotionModels, style: Style) -> None:
    found, expression = joined(run(opened(models, style, PAL), heard(20)))
    size = len(EverybodyModel.of(models).basis.typical_spread)
    assert expression.shape == (20, default_model().num_expression)
    assert not expression[:, size:].any()
    again = style.rest_mouth + EverybodyModel.of(models).basis.reconstruct(expression[:, :size])
    assert np.abs(again - found).mean() < 0.6


def test_features_without_the_cepstra_are_refused(models: MotionModels, style: Style) -> None:
    with pytest.raises(InvalidRequest, match="identity_removed"):
        opened(models, style, PAL).push(0, random_features(3))


def test_without_style_is_another_motion(models: MotionModels, style: Style) -> None:
    features = heard(20)
    full, plain = (joined(run(opened(models, each, PAL), features))[0] for each in (style, models.mean_speaker(style)))
    assert not np.array_equal(full, plain)


def test_a_correction_is_added_in_units_of_the_spread(models: MotionModels, style: Style) -> None:
    features = heard(20)
    shift = np.linspace(-0.5, 0.5, 24).astype(np.float32)
    correction = np.zeros((24, NUM_POOLED_WINDOW), np.float32)
    correction[:, -1] = shift
    styles = (style, style.adding(**{CORRECTION: correction}))
    plain, found = (EverybodyGrid(models, each, NEVER).push(features).mouth_landmarks for each in styles)
    basis = EverybodyModel.of(models).basis
    moved = np.float32(AMPLITUDE) * basis.reconstruct(shift * expression_spread(style.spread, models.basis, basis))
    np.testing.assert_allclose(found, plain + moved, atol=1e-4)
