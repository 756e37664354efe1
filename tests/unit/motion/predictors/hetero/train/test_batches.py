from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from services.motion.predictors.hetero.inputs import Heard, heard_shape
from services.motion.predictors.hetero.network import PHONES_AFTER, PHONES_BEFORE, SHRINKS
from services.motion.predictors.hetero.train.batches import BatchSampler
from services.motion.predictors.hetero.train.teacher import TeacherConfig, fit_teacher
from services.motion.speech_states import STATES
from services.motion.train.basis import committed_basis
from services.motion.train.clips import clips_of
from services.training.trainset.reader import TrainSet
from tests.unit.motion.predictors.hetero.made import TINY, heterogeneous_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return heterogeneous_set(tmp_path_factory.mktemp("hetero") / "set")


def sampler_of(data: TrainSet, heard: int = 2, hears: Heard = "states") -> BatchSampler:
    clips, basis = clips_of(data, "train", (STATES,)), committed_basis()
    speech = [row for row in data.of("train") if not row.has_face]
    config = replace(TINY.batches, heard=heard)
    teacher = fit_teacher(clips, basis, TeacherConfig(past=2, ahead=1), hears)
    return BatchSampler(data, clips, speech if heard else [], basis, teacher, config)


@pytest.fixture(scope="module", params=get_args(Heard))
def sampler(request: pytest.FixtureRequest, data: TrainSet) -> BatchSampler:
    return sampler_of(data, hears=request.param)


def test_the_same_random_numbers_give_the_same_batch(data: TrainSet, sampler: BatchSampler) -> None:
    again = sampler_of(data, hears="paper" if sampler.draw(np.random.default_rng(3)).speech.ndim == 4 else "states")
    first, second = (each.draw(np.random.default_rng(3)) for each in (sampler, again))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_batch_has_stretches_with_a_face_and_stretches_of_speech_alone(sampler: BatchSampler) -> None:
    batches = [sampler.draw(np.random.default_rng(seed)) for seed in range(5)]
    assert all(not batch.valid[2:].any() and not batch.offsets[2:].any() for batch in batches)
    assert any(batch.valid[:2].any() for batch in batches)
    assert any(batch.inside[2:].any() and batch.taught[2:].any() for batch in batches)
    assert all(batch.reference.any(axis=(1, 2, 3)).all() for batch in batches)


def test_shapes_fit_the_network(sampler: BatchSampler) -> None:
    batch, frames = sampler.draw(np.random.default_rng(0)), TINY.batches.frames
    assert batch.speech.shape in {(4, frames + SHRINKS, *heard_shape(heard)) for heard in get_args(Heard)}
    assert batch.phones.shape == (4, PHONES_BEFORE + frames + PHONES_AFTER, 4, 40)
    assert batch.offsets.shape == (4, frames, 59, 3)
    np.testing.assert_allclose(batch.phones.sum(axis=-1), 1.0, atol=1e-3)


def test_without_speech_alone_only_faces_are_drawn(data: TrainSet) -> None:
    assert len(sampler_of(data, heard=0).draw(np.random.default_rng(0)).speech) == TINY.batches.seen


def test_clips_without_phone_labels_are_taught_by_the_posteriorgram_alone(sampler: BatchSampler) -> None:
    batches = [sampler.draw(np.random.default_rng(seed)) for seed in range(5)]
    assert any(batch.phones[..., 1].max() > 0.5 for batch in batches)
