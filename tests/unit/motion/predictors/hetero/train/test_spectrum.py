from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.motion.predictors.hetero.train.spectrum import SpectrumNoise, changed_spectrum

MEL = np.random.default_rng(0).normal(size=(60, 80)).astype(np.float32)
STILL = SpectrumNoise(tract=0.0, gain=(1.0, 1.0), tilt=0.0, level=0.0, noisy=0.0, smeared=0.0, hidden=0.0)


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
