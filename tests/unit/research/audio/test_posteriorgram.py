"""Windows of the posteriorgram network, targets and weights, and recordings under other conditions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from research.audio.posteriorgram import (
    AugmentConfig,
    PpgConfig,
    PpgNetwork,
    ServedPpg,
    augment,
    no_speech,
    row_weights,
    soft_targets,
    windows_of,
    with_hidden_spans,
)
from research.audio.recordings import IGNORED, LabelledSignal, spectral_rows
from services.audio.posteriorgram import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, PAST_ROWS, WINDOW_ROWS, normalise
from services.audio.spectral import cepstra, silent_rows
from services.common.array_types import Float32
from services.common.wire.phones import SILENCE


def test_targets_shared_unknown_skipped() -> None:
    """Targets share with their neighbours and skip the unknown."""
    targets = soft_targets(torch.tensor([[3, 3, 5, IGNORED]]), neighbour=0.1, smoothing=0.0)[0].numpy()
    assert np.allclose(targets[:3].sum(axis=1), 1.0)
    assert np.isclose(targets[1, 3], 0.9)
    assert np.isclose(targets[1, 5], 0.1)
    assert targets[3].sum() == 0.0


def test_a_window_answers_the_rows_after_its_past(speech: Float32) -> None:
    labels = (np.arange(300) % 40).astype(np.uint8)
    windows = windows_of(LabelledSignal(speech, labels), np.array([8, 108, 299]))
    assert windows.cepstra.shape == (3, WINDOW_ROWS, 20)
    assert windows.labels[1, PAST_ROWS] == labels[108]
    assert windows.labels[0, PAST_ROWS - 9] == IGNORED  # before the recording
    assert (windows.labels[2, PAST_ROWS + 1 :] == IGNORED).all()  # after the recording
    assert row_weights(0.5)[-LOOK_AHEAD_ROWS:].sum() == 0.0


def test_augmentation_repeatable_with_speed(speech: Float32) -> None:
    """Augmentation is repeatable and moves labels with the speed."""
    signal = LabelledSignal(speech, np.repeat(np.arange(30, dtype=np.uint8), 10))
    config = AugmentConfig(speed=(0.8, 0.8), clean_chance=0.0)
    first = augment(signal, config, np.random.default_rng(4))
    again = augment(signal, config, np.random.default_rng(4))
    assert first.samples.tobytes() == again.samples.tobytes()
    assert len(first.labels) == len(first.samples) // 160 == 375
    assert np.all(np.diff(first.labels.astype(int)) >= 0)
    assert first.labels[187] == 15  # the middle stays the middle


def test_sounds_without_speech_are_labelled_silence() -> None:
    for seed in range(6):
        signal = no_speech(np.random.default_rng(seed), 50)
        assert np.isfinite(signal.samples).all()
        assert len(signal.samples) == 8000
        assert (signal.labels == SILENCE).all()


def test_served_network_equals_trained() -> None:
    """The served network gives the answered rows of the trained one."""
    torch.manual_seed(1)
    network = PpgNetwork(PpgConfig(hidden=8, projection=8)).eval()
    cepstra = torch.randn(3, WINDOW_ROWS, 20)
    served = ServedPpg(network)(cepstra)
    assert served.shape == (3, 4, 40)
    assert torch.allclose(served.sum(dim=2), torch.ones(3, 4))
    assert torch.equal(served, network(cepstra)[:, PAST_ROWS : PAST_ROWS + 4].exp())


def test_longer_tract_lowers_formants() -> None:
    """A longer vocal tract lowers the formants and keeps the rows."""
    time_s = np.arange(16_000) / 16_000
    labels, starts = np.full(100, 3, np.uint8), np.array([60])
    tone, lower = (LabelledSignal(np.sin(2 * np.pi * hz * time_s).astype(np.float32), labels) for hz in (1250.0, 1000.0))
    plain, warped = windows_of(tone, starts), windows_of(tone, starts, vocal_tract=1.25)
    wanted = windows_of(lower, starts)
    assert np.array_equal(warped.labels, plain.labels)
    moved = np.abs(warped.cepstra - wanted.cepstra)[0, 20:, 1:].mean()
    assert moved < 0.25 * np.abs(plain.cepstra - wanted.cepstra)[0, 20:, 1:].mean()


def test_training_windows_equal_stage(speech: Float32) -> None:
    """Windows of the training are those of the stage up to rounding."""
    rows = np.concatenate([silent_rows(MEAN_CONTEXT_ROWS), cepstra(spectral_rows(speech))])
    windows = windows_of(LabelledSignal(speech, np.zeros(300, np.uint8)), np.array([150]))
    end = MEAN_CONTEXT_ROWS + 150 + 4 + LOOK_AHEAD_ROWS
    np.testing.assert_allclose(windows.cepstra[0], normalise(rows[end - MEAN_CONTEXT_ROWS : end]), atol=1e-4)


def test_hidden_span_shows_mean() -> None:
    """A hidden span shows the mean of its window."""
    windows = np.random.default_rng(1).standard_normal((8, WINDOW_ROWS, 20)).astype(np.float32)
    hidden = with_hidden_spans(windows, 1.0, np.random.default_rng(2))
    changed = (hidden != windows).any(axis=2)
    assert (changed.sum(axis=1) >= 4).all()
    assert (changed.sum(axis=1) <= 12).all()
    for before, after, rows in zip(windows, hidden, changed, strict=True):
        np.testing.assert_array_equal(after[rows], np.broadcast_to(before.mean(axis=0), after[rows].shape))
    assert with_hidden_spans(windows, 0.0, np.random.default_rng(2)).tobytes() == windows.tobytes()


def test_a_telephone_keeps_its_band_and_no_more(speech: Float32) -> None:
    signal = LabelledSignal(speech, np.zeros(300, np.uint8))
    plain = AugmentConfig(
        clean_chance=0.0, speed=(1.0, 1.0), room_chance=0.0, band_limit_chance=0.0, noise_chance=0.0, telephone_chance=0.0
    )
    direct = augment(signal, plain, np.random.default_rng(4)).samples
    heard = augment(signal, replace(plain, telephone_chance=1.0), np.random.default_rng(4)).samples
    assert heard.shape == direct.shape
    hz = np.fft.rfftfreq(len(speech), 1 / 16_000)

    def power(samples: Float32, low_hz: float, high_hz: float) -> float:
        return float((np.abs(np.fft.rfft(samples))[(hz >= low_hz) & (hz < high_hz)] ** 2).sum())

    inside, below = ((power(heard, *band) / power(direct, *band)) for band in ((500.0, 2500.0), (20.0, 100.0)))
    assert below < 0.05 * inside
