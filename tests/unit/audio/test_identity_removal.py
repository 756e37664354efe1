"""The features without identity: normalisation, windows, and what the committed network does with a voice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import soxr

from services.audio.extract import FeatureExtractor, extract_features
from services.audio.identity_removal import (
    IDENTITY_REMOVED_WIDTH,
    IDENTITY_WINDOW_ROWS,
    RANGE,
    IdentityRemovalModel,
    RunningNormaliser,
    normal_silence,
)
from services.audio.models import WEIGHTS, AudioModels
from services.audio.spectral import cepstra
from services.common.array_types import Float32
from services.common.wire.timeline import Timeline
from tests.unit.audio.test_spectral import spectral_rows

PAL = Timeline(rate=Fraction(25))
ONLY = frozenset({"identity_removed"})


def removed(models: AudioModels, samples: Float32) -> Float32:
    return extract_features(samples, 16000, PAL, ONLY, models=models)["identity_removed"]


@pytest.mark.parametrize("cut", [1, 3, 50])
def test_pieces_change_no_bit_of_the_normalised_rows(speech: Float32, cut: int) -> None:
    rows = cepstra(spectral_rows(speech))
    whole = RunningNormaliser().push(rows)
    pieces = RunningNormaliser()
    joined = np.concatenate([pieces.push(rows[start : start + cut]) for start in range(0, len(rows), cut)])
    assert joined.tobytes() == whole.tobytes()
    assert np.abs(whole).max() <= RANGE


def test_microphone_colour_fades(speech: Float32) -> None:
    """A constant microphone colour fades from the normalised rows."""
    rows = cepstra(spectral_rows(speech))
    coloured = rows + np.linspace(3.0, -3.0, 20, dtype=np.float32)
    plain, other = RunningNormaliser().push(rows)[200:], RunningNormaliser().push(coloured)[200:]
    assert np.abs(plain - other).mean() < 0.35 * np.abs((coloured - rows) / rows.std(axis=0)).mean()


def test_stream_starts_as_silence() -> None:
    """Silence before a stream is what the normaliser makes of silence."""
    rows = cepstra(spectral_rows(np.zeros(1600, np.float32)))
    np.testing.assert_allclose(RunningNormaliser().push(rows), normal_silence(10), atol=1e-3)


def test_first_row_has_statistics_of_training() -> None:
    """The network knows rows that are normalised with these numbers: other numbers need other weights."""
    expected = [1.741, -1.235, -0.757, -1.357, 0.208, 0.518, 0.297, 0.648, 0.317, 0.04]
    expected += [0.05, 0.261, 0.396, 0.261, 0.768, 0.64, 0.248, 0.396, 0.565, 0.354]
    np.testing.assert_allclose(RunningNormaliser().push(np.zeros((1, 20), np.float32))[0], expected, atol=6e-4)


def test_the_batch_changes_no_bit() -> None:
    model = IdentityRemovalModel(WEIGHTS)
    windows = np.random.default_rng(2).standard_normal((17, IDENTITY_WINDOW_ROWS, 20)).astype(np.float32)
    whole = model.run(windows)
    assert whole.shape == (17, 4, IDENTITY_REMOVED_WIDTH)
    for batch in (1, 2, 8):
        parts = [model.run(windows[start : start + batch]) for start in range(0, 17, batch)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_feature_latency(models: AudioModels, speech: Float32) -> None:
    """Features come after four rows and the rest of their analysis window."""
    extractor = FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=PAL, kinds=ONLY)
    needed = 640 + 4 * 160 + 120
    assert extractor.push(0, speech[: needed - 1]) == []
    (block,) = extractor.push(needed - 1, speech[needed - 1 : needed])
    assert block.features.keys() == ONLY


def test_memory_ends_after_four_seconds(models: AudioModels, speech: Float32) -> None:
    """Sound of four seconds ago changes no bit."""
    rng = np.random.default_rng(5)
    shared = np.tile(speech, 2)
    loud, quiet = (np.concatenate([gain * rng.standard_normal(16000).astype(np.float32), shared]) for gain in (0.3, 0.001))
    first, second = removed(models, loud), removed(models, quiet)
    assert first[25 + 90 :].tobytes() == second[25 + 90 :].tobytes()
    assert first[25:40].tobytes() != second[25:40].tobytes()


def test_a_level_leaves_what_is_said(models: AudioModels, speech: Float32) -> None:
    loud, quiet = removed(models, speech), removed(models, speech * np.float32(0.1))
    same = (loud == quiet).all(axis=-1)
    # One of 80 rows is chosen for each; .76 here, and four rows that choose otherwise on another processor are .75.
    assert same.mean() > 0.7


def test_higher_voice_stays_near(models: AudioModels, speech: Float32) -> None:
    """A higher voice gives nearer features than its cepstra are."""
    # The same words a tenth faster are those of a higher voice with a shorter throat; row n of one is row 1.1 n of the other.
    faster = np.asarray(soxr.resample(speech, 17600, 16000), np.float32)
    rows = np.arange(len(faster) // 160 - 8)
    matched = np.minimum((rows * 1.1).astype(np.intp), len(speech) // 160 - 1)
    raw = [RunningNormaliser().push(cepstra(spectral_rows(samples))) for samples in (speech, faster)]
    clean = [removed(models, samples).reshape(-1, IDENTITY_REMOVED_WIDTH) for samples in (speech, faster)]

    def distance(first: Float32, second: Float32) -> float:
        spread = np.concatenate([first, second]).std(axis=0) + 1e-6
        return float(np.abs((first[matched] - second[rows]) / spread).mean())

    assert distance(*clean) < 0.8 * distance(*raw)


def test_every_row_is_one_of_the_components(models: AudioModels, speech: Float32) -> None:
    rows = removed(models, speech).reshape(-1, IDENTITY_REMOVED_WIDTH)
    assert 8 <= len(np.unique(rows, axis=0)) <= 80
