"""Logistic regressions of a speech map: which frames are speech, noise that is made, and the fit."""

from __future__ import annotations

import numpy as np
import pytest

from research.methods.dubstage.logistic import NOISES, LabelledFrames, balanced, fit_logistic, noise_states, speech_and_quiet


def test_speech_begins_before_the_detector_hears_it() -> None:
    """Frames shortly before the detector hears speech are speech; frames near speech are never sure silence."""
    heard = np.zeros(60, np.float32)
    heard[30:40] = 0.9
    speech, quiet = speech_and_quiet(heard)
    np.testing.assert_array_equal(np.flatnonzero(speech), np.arange(25, 40))
    np.testing.assert_array_equal(np.flatnonzero(~quiet), np.arange(21, 43))


def test_doubtful_speech_is_neither() -> None:
    speech, quiet = speech_and_quiet(np.full(40, 0.3, np.float32))
    assert not speech.any()
    assert not quiet.any()


def test_noise_has_sound_and_differs() -> None:
    """Each kind of noise is a finite sound; no two kinds are alike, and other random numbers give another sound."""
    seconds = np.arange(12 * 16000) / 16000.0
    made = [make(np.random.default_rng(1), seconds) for make in NOISES]
    for each in made:
        assert np.isfinite(each).all()
        assert each.std() > 0.0
    alike = np.abs(np.corrcoef(np.stack(made))) - np.eye(len(made))
    assert alike.max() < 0.95
    assert not np.array_equal(NOISES[0](np.random.default_rng(2), seconds), made[0])


def test_states_of_noise_come_from_the_encoder() -> None:
    states = next(noise_states())
    assert states.shape[1] == 192
    assert 290 <= len(states) <= 300
    assert states.std() > 0.1


def test_speech_counts_as_much_as_none() -> None:
    parts = [
        LabelledFrames(np.zeros((len(label), 4), np.float32), np.array(label, np.float32), np.ones(len(label)))
        for label in ([1, 1, 1, 0], [0, 1])
    ]
    weight, label = (np.concatenate([getattr(part, name) for part in balanced(parts)]) for name in ("weight", "label"))
    assert weight[label > 0].sum() == pytest.approx(weight[label == 0].sum())


def test_a_regression_tells_two_kinds_apart() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.5).astype(np.float32)
    windows = rng.normal(0.0, 1.0, (2000, 8)).astype(np.float32)
    windows[:, 3] += 3.0 * label
    weight, bias = fit_logistic([LabelledFrames(windows, label, np.ones(2000))], 0.005)
    probability = 1.0 / (1.0 + np.exp(-(windows @ weight + bias)))
    assert ((probability > 0.5) == (label > 0.5)).mean() > 0.9
    assert int(np.abs(weight).argmax()) == 3
