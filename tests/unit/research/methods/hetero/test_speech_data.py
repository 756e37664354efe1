from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from research.methods.hetero.speech_data import (
    HeteroBatchSampler,
    SpectrumNoise,
    TeacherConfig,
    changed_spectrum,
    fit_teacher,
    input_shape,
    network_input,
)
from research.motion.basis import committed_basis
from research.motion.clips import Clips, clips_of
from research.motion.protocol import pearson
from research.training.trainset import TrainSet
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS
from services.motion.predictors.hetero.predictor import QUIET, WINDOW_AHEAD, WINDOW_PAST, SpeechInput, relative_mel
from services.motion.speech_states import STATES
from services.motion.style import measure_mouth
from tests.unit.motion.predictors.hetero.made import TINY, heterogeneous_set
from tests.unit.motion.synthesised import random_features, with_states

MEL = np.random.default_rng(0).normal(size=(60, 80)).astype(np.float32)
STILL = SpectrumNoise(tract=0.0, gain=(1.0, 1.0), tilt=0.0, level=0.0, noisy=0.0, smeared=0.0, hidden=0.0)
SHORT = TeacherConfig(past=2, ahead=1)
"""A filter that is fitted in a tenth of the time."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return heterogeneous_set(tmp_path_factory.mktemp("hetero") / "set")


def sampler_of(data: TrainSet, heard: int = 2, hears: SpeechInput = "states") -> HeteroBatchSampler:
    clips, basis = clips_of(data, "train", (STATES,)), committed_basis()
    speech = [row for row in data.of("train") if not row.has_face]
    config = replace(TINY.batches, heard=heard)
    teacher = fit_teacher(clips, basis, TeacherConfig(past=2, ahead=1), hears)
    return HeteroBatchSampler(data, clips, speech if heard else [], basis, teacher, config)


@pytest.fixture(scope="module", params=get_args(SpeechInput))
def sampler(request: pytest.FixtureRequest, data: TrainSet) -> HeteroBatchSampler:
    return sampler_of(data, hears=request.param)


def test_the_same_random_numbers_give_the_same_batch(data: TrainSet, sampler: HeteroBatchSampler) -> None:
    again = sampler_of(data, hears="mel" if sampler.draw(np.random.default_rng(3)).speech.ndim == 4 else "states")
    first, second = (each.draw(np.random.default_rng(3)) for each in (sampler, again))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


def test_batch_mixes_face_and_speech(sampler: HeteroBatchSampler) -> None:
    """A batch has spans with a face and spans of speech alone."""
    batches = [sampler.draw(np.random.default_rng(seed)) for seed in range(5)]
    assert all(not batch.valid[2:].any() and not batch.offsets[2:].any() for batch in batches)
    assert any(batch.valid[:2].any() for batch in batches)
    assert any(batch.inside[2:].any() and batch.taught[2:].any() for batch in batches)
    assert all(batch.reference.any(axis=(1, 2, 3)).all() for batch in batches)


def test_shapes_fit_the_network(sampler: HeteroBatchSampler) -> None:
    batch, frames = sampler.draw(np.random.default_rng(0)), TINY.batches.frames
    assert batch.speech.shape in {(4, frames + SHRINKS, *input_shape(heard)) for heard in get_args(SpeechInput)}
    assert batch.phones.shape == (4, PHONES_BEFORE + frames + PHONES_AFTER, 4, 40)
    assert batch.offsets.shape == (4, frames, 59, 3)
    np.testing.assert_allclose(batch.phones.sum(axis=-1), 1.0, atol=1e-3)


def test_without_speech_alone_only_faces_are_drawn(data: TrainSet) -> None:
    assert len(sampler_of(data, heard=0).draw(np.random.default_rng(0)).speech) == TINY.batches.seen


def test_unlabelled_clips_taught_by_posteriorgram(sampler: HeteroBatchSampler) -> None:
    """Clips without phone labels are taught by the posteriorgram alone."""
    batches = [sampler.draw(np.random.default_rng(seed)) for seed in range(5)]
    assert any(batch.phones[..., 1].max() > 0.5 for batch in batches)


def test_without_strength_nothing_changes() -> None:
    np.testing.assert_allclose(changed_spectrum(MEL, STILL, np.random.default_rng(1)), MEL, atol=1e-2)


def test_the_input_stays_and_the_seed_decides() -> None:
    kept = MEL.copy()
    first, second = (changed_spectrum(MEL, SpectrumNoise(), np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(MEL, kept)
    np.testing.assert_array_equal(first, second)
    assert first.shape == MEL.shape
    assert np.isfinite(first).all()


def test_noise_fills_the_quiet_places() -> None:
    quiet = np.full((60, 80), -3.0, np.float32)
    noisy = changed_spectrum(quiet, SpectrumNoise(noisy=1.0, noise_level=(0.0, 0.0)), np.random.default_rng(3))
    assert noisy.mean() > -1.0


def test_an_echo_never_takes_power_away() -> None:
    loud = np.full((60, 80), -2.0, np.float32)
    loud[20] = 2.0
    smeared = changed_spectrum(loud, replace(STILL, smeared=1.0), np.random.default_rng(4))
    assert (smeared >= loud - 1e-4).all()
    assert smeared[21].mean() > -1.0


def test_the_teacher_expects_what_the_sound_tells(clips: Clips) -> None:
    basis = committed_basis()
    teacher = fit_teacher(clips[:5], basis, SHORT, "mel")
    held_out = clips[5]
    expected = teacher.answer(held_out.features, held_out.content)
    mouth = measure_mouth(held_out.mouth_landmarks, basis)
    truth = basis.project(held_out.mouth_landmarks - mouth.rest_mouth)
    assert expected.shape == truth.shape
    assert pearson(expected[:, 0], truth[:, 0]) > 0.3


@pytest.mark.parametrize("heard", get_args(SpeechInput))
def test_narrow_corpus_kept_apart(clips: Clips, heard: SpeechInput) -> None:
    """Facts that hold in a narrow corpus are kept apart."""
    teacher = fit_teacher(clips, committed_basis(), SHORT, heard)
    assert not teacher.alone(clips[0]).any()
    assert teacher.alone(replace(clips[0], apart="elsewhere")).shape == (len(clips[0]), 16)
    assert not np.isnan(teacher.answer(clips[0].features, clips[0].content)).any()


@pytest.mark.parametrize("heard", get_args(SpeechInput))
def test_a_clip_is_heard_in_silence(heard: SpeechInput) -> None:
    features = with_states(random_features(30), STATES)
    rows = network_input(features, heard)
    assert rows.shape == (WINDOW_PAST + 30 + WINDOW_AHEAD, *input_shape(heard))
    quiet = QUIET if heard == "mel" else 0.0
    assert (rows[:WINDOW_PAST] == quiet).all()
    own = relative_mel(features) if heard == "mel" else features.extra[STATES]
    np.testing.assert_array_equal(rows[WINDOW_PAST:-WINDOW_AHEAD], own)
