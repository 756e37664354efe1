"""The fit of the filters that the lag is measured with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.motion.clips import Clips, TrainingClip, on_time, shifted, with_lag_fraction
from research.motion.lag import fit_lag, left_out, planted, voices, write_model
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.wire.timeline import sampled
from services.motion.lag import LAG_STATES, LagModel, estimate_lag
from services.motion.models import MotionModels
from tests.unit.motion.made_clips import in_memory, made_clip

FRAMES = 160


def talking(index: int, speaker: str) -> TrainingClip:
    """A clip with states of which one tells the opening of the mouth."""
    clip = made_clip(index, num_frames=FRAMES, speaker=speaker)
    states = 0.3 * np.random.default_rng(index).standard_normal((FRAMES, 192)).astype(np.float32)
    states[:, 7] += mouth_opening(clip.mouth_landmarks) / 3.0
    return replace(clip, features=replace(clip.features, extra={**clip.features.extra, LAG_STATES: states}))


@pytest.fixture(scope="module")
def clips() -> Clips:
    return in_memory([talking(index, speaker) for index, speaker in enumerate(("anna", "anna", "ben", "carl"))])


@pytest.fixture(scope="module")
def model(clips: Clips, models: MotionModels) -> LagModel:
    return fit_lag(clips, models.basis)


@pytest.mark.parametrize("lag", [-8, 0, 5])
def test_known_lag_found_for_stranger(model: LagModel, lag: int) -> None:
    """A lag that was put into a stranger's clip is found."""
    late = shifted(talking(9, "dan"), -lag)
    found = estimate_lag(late.features, late.mouth_landmarks, late.usable, model)
    assert found.lag_frames == lag
    assert found.confidence > 0.3
    assert model.weight.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("late", [-0.25, 0.0, 0.5])
def test_subframe_lag_is_measured(model: LagModel, late: float) -> None:
    """The rest of a lag below a frame is measured."""
    clip = talking(9, "dan")
    # The picture of frame n shows the mouth of the sound at n + late.
    moved = replace(clip, mouth_landmarks=sampled(clip.mouth_landmarks, late))
    found = with_lag_fraction(moved, model).lag_fraction - with_lag_fraction(clip, model).lag_fraction
    assert found == pytest.approx(late, abs=0.25)


@pytest.mark.parametrize("late", [-0.75, 0.25, 1.0, 1.25])
def test_filters_learn_the_zero_of_moved_clips(clips: Clips, models: MotionModels, late: float) -> None:
    """Filters of clips whose mouths are moved earlier find lags that are smaller by this time."""
    moved = fit_lag(clips.moved(lambda clip: on_time(clip, late)), models.basis)
    stranger = talking(9, "dan")
    found = estimate_lag(stranger.features, stranger.mouth_landmarks, stranger.usable, moved)
    assert found.lag_frames + found.lag_fraction == pytest.approx(-late, abs=0.25)


def test_a_foreign_voice_is_less_confident(model: LagModel) -> None:
    clip, other = talking(9, "dan"), talking(10, "eve")
    own, foreign = (estimate_lag(each.features, clip.mouth_landmarks, clip.usable, model).confidence for each in (clip, other))
    assert foreign < 0.5 * own


def test_filters_of_other_clips(clips: Clips, models: MotionModels) -> None:
    """Filters without a speaker are those of the other clips."""
    judged = left_out(clips, models.basis)
    assert [clip.speaker for _, clip in judged] == ["anna", "anna", "ben", "carl"]
    others = fit_lag(clips.only(row for row in clips.rows if row.speaker != "carl"), models.basis)
    late = talking(9, "dan")
    for model in (judged[-1][0], others):
        scores = model.scores(late.features.extra[LAG_STATES], late.mouth_landmarks, late.usable)
        np.testing.assert_allclose(
            scores, others.scores(late.features.extra[LAG_STATES], late.mouth_landmarks, late.usable), atol=0.02
        )


def test_the_judge_counts_lags_and_voices(clips: Clips, model: LagModel) -> None:
    judged = [(model, clip) for clip in clips]
    found = planted(judged)
    assert (found.clips, found.lags, found.within_one) == (4, 68, 1.0)
    own_and_foreign = voices(judged, 60)
    assert own_and_foreign is not None
    assert own_and_foreign.own == 8
    assert own_and_foreign.within_one == 1.0
    assert own_and_foreign.told_apart > 0.9
    # Clips that are moved by three frames have a lag where none is expected.
    assert planted([(model, shifted(clip, 3)) for clip in clips]).within_one == 0.0
    assert voices(judged, 250) is None


def test_one_speaker_cannot_be_left_out(clips: Clips, models: MotionModels) -> None:
    with pytest.raises(InvalidRequestError, match="1 speakers of free speech"):
        left_out(clips.only(clips.rows[:2]), models.basis)


def test_what_is_written_is_read_again(tmp_path: Path, clips: Clips, model: LagModel) -> None:
    path, sheet, card = write_model(model, tmp_path, clips, {"dev: planted lags": {"within_one": 0.98764}}, 0.9412)
    again = LagModel.read(tmp_path)
    assert again.version == model.version
    facts = json.loads(sheet.read_text())
    assert facts["scores"] == {"dev: planted lags": {"within_one": 0.9876}}
    assert (facts["speakers"], facts["clips"], facts["moved_frames"]) == (3, 4, 0.941)
    assert "CC0" in card.read_text()
    assert path.name == "lag.safetensors"
