"""Windows of the posteriorgram network, targets and weights, and recordings under other conditions."""

from __future__ import annotations

import numpy as np
import torch

from services.audio.networks.ppg import PpgConfig, PpgNetwork, ServedPpg
from services.audio.phones import SILENCE
from services.audio.train.augment import AugmentConfig, augment, no_speech
from services.audio.train.recordings import IGNORED, LabelledSignal
from services.audio.train.windows import row_weights, soft_targets, windows_of
from services.audio.windows import LOOK_AHEAD_ROWS, PAST_ROWS, WINDOW_ROWS
from services.common.array_types import Float32


def test_targets_share_with_their_neighbours_and_skip_the_unknown() -> None:
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


def test_augmentation_is_repeatable_and_moves_labels_with_the_speed(speech: Float32) -> None:
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


def test_the_served_network_gives_the_answered_rows_of_the_trained_one() -> None:
    torch.manual_seed(1)
    network = PpgNetwork(PpgConfig(hidden=8, projection=8)).eval()
    cepstra = torch.randn(3, WINDOW_ROWS, 20)
    served = ServedPpg(network)(cepstra)
    assert served.shape == (3, 4, 40)
    assert torch.allclose(served.sum(dim=2), torch.ones(3, 4))
    assert torch.equal(served, network(cepstra)[:, PAST_ROWS : PAST_ROWS + 4].exp())
