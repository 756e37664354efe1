"""Motion with expression on output timelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.landmarks import mouth_opening
from services.common.geometry.default_model import default_model
from services.common.wire.timeline import Timeline
from services.motion.expression import expressed, expression_spread
from services.motion.models import MotionModels
from services.motion.predictors.everybody.grid import CORRECTION, SHARE, EverybodyGrid
from services.motion.predictors.everybody.inputs import FEATURE, WINDOW, WINDOW_AHEAD, heard_clip, silent_speech
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.speech_map import FILES, HEARINGS, Hearing, MapMouth, SpeechMapModel, num_correction_inputs
from services.motion.speech_states import neighbours, silent_states
from services.motion.style import Style
from tests.unit.motion.predictors.everybody.person import NEVER, heard, joined, opened
from tests.unit.motion.streams import NTSC, PAL, run
from tests.unit.motion.synthesised import with_closed_lips


@pytest.mark.parametrize("hearing", HEARINGS, ids=lambda hearing: hearing.feature)
@pytest.mark.parametrize("timeline", [PAL, NTSC])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_chunks_give_the_same_bytes(
    models: MotionModels, style: Style, timeline: Timeline, cut: int, hearing: Hearing
) -> None:
    features = heard(40)
    whole, pieces = (joined(run(opened(models, style, timeline, hearing), features, size)) for size in (1000, cut))
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
    other = replace(features, extra={**features.extra, FEATURE: changed})
    first, second = (joined(run(opened(models, style, PAL), each))[0] for each in (features, other))
    np.testing.assert_array_equal(first[: 35 - WINDOW_AHEAD], second[: 35 - WINDOW_AHEAD])
    assert not np.array_equal(first[35 - WINDOW_AHEAD], second[35 - WINDOW_AHEAD])


@pytest.mark.parametrize("hearing", HEARINGS, ids=lambda hearing: hearing.feature)
def test_a_mouth_is_the_mean_of_the_networks_and_of_the_maps(models: MotionModels, style: Style, hearing: Hearing) -> None:
    correction = (
        np.random.default_rng(5)
        .normal(0.0, 0.2, (models.num_coefficients, num_correction_inputs(models.num_coefficients)))
        .astype(np.float32)
    )
    features, model = heard(30), EverybodyModel.of(models)
    rows, basis = heard_clip(features, model.silence), model.basis
    spread = expression_spread(style.spread, models.basis, basis)
    network = [expressed(model.predict(rows[n : n + WINDOW]) * spread, basis, style) for n in range(26)]
    mouth = MapMouth(SpeechMapModel.of(models), hearing, models, style, correction)
    mapped = [mouth(window, 1.0) for window in neighbours(features.extra[hearing.feature], hearing.past, hearing.ahead)[:26]]
    grid = EverybodyGrid(models, style.adding(**{CORRECTION: correction}), NEVER, hearing)
    expected = SHARE * np.stack(network) + (1.0 - SHARE) * np.stack(mapped)
    np.testing.assert_allclose(grid.push(features).mouth_landmarks, expected, atol=2e-3)
    assert np.abs(np.stack(network) - np.stack(mapped)).max() > 1.0


def test_silence_is_the_closed_mouth(models: MotionModels, style: Style) -> None:
    quiet = silent_speech(30, EverybodyModel.of(models).silence)
    features = replace(quiet, extra={**quiet.extra, FILES.feature: silent_states(30)})
    found, _ = joined(run(opened(models, style, PAL), features))
    np.testing.assert_allclose(found, np.broadcast_to(style.closed_mouth, found.shape), atol=1e-5)


@pytest.mark.parametrize("hearing", HEARINGS, ids=lambda hearing: hearing.feature)
def test_lips_close_where_the_encoder_hears_closed_lips(models: MotionModels, style: Style, hearing: Hearing) -> None:
    features = with_closed_lips(heard(20), SpeechMapModel.of(models).maps[hearing.feature], [9])
    found = mouth_opening(joined(run(opened(models, style, PAL, hearing), features))[0])
    assert found[9] < float(mouth_opening(style.closed_mouth)) + 1.0
    assert found.max() > found[9] + 1.0


def test_expression_and_landmarks_are_one_face(models: MotionModels, style: Style) -> None:
    found, expression = joined(run(opened(models, style, PAL), heard(20)))
    size = len(EverybodyModel.of(models).basis.typical_spread)
    assert expression.shape == (20, default_model().num_expression)
    assert not expression[:, size:].any()
    again = style.rest_mouth + EverybodyModel.of(models).basis.reconstruct(expression[:, :size])
    assert np.abs(again - found).mean() < 0.6


@pytest.mark.parametrize("missing", [FEATURE, FILES.feature])
def test_features_without_a_tensor_are_refused(models: MotionModels, style: Style, missing: str) -> None:
    features = heard(3)
    some = replace(features, extra={name: values for name, values in features.extra.items() if name != missing})
    with pytest.raises(InvalidRequest, match=missing):
        opened(models, style, PAL).push(0, some)


def test_without_style_is_another_motion(models: MotionModels, style: Style) -> None:
    features = heard(20)
    full, plain = (joined(run(opened(models, each, PAL), features))[0] for each in (style, models.mean_speaker(style)))
    assert not np.array_equal(full, plain)
