import numpy as np
import torch

from services.audio.networks.ppg import PpgConfig, PpgNetwork, ServedPpg
from services.audio.phones import PHONE_INDEX, SILENCE
from services.audio.train.align import mask_by_given_times
from services.audio.train.augment import AugmentConfig, LabelledSignal, augment, no_speech
from services.audio.train.corpus import Utterance, WordSpan, words_of
from services.audio.train.dataset import row_weights, soft_targets, windows_of
from services.audio.train.evaluate import accuracy
from services.audio.train.ppg import TrainConfig, learning_rate
from services.audio.train.sphinx import IGNORED, WordRows
from services.audio.windows import LOOK_AHEAD_ROWS, PAST_ROWS, WINDOW_ROWS
from services.common.array_types import Float32


def test_words_lose_their_punctuation_and_keep_apostrophes() -> None:
    assert words_of('The "forty-two line Bible", don\'t!') == ("the", "forty", "two", "line", "bible", "don't")


def test_rows_count_only_where_the_given_times_name_the_same_word() -> None:
    utterance = Utterance(
        name="u", split="train", source="grid", speaker="s", samples=np.zeros(0, np.float32), words=("bin",),
        spans=(WordSpan(word="sil", start_s=0.0, end_s=0.05), WordSpan(word="bin", start_s=0.05, end_s=0.1)),
    )  # fmt: skip
    word = WordRows("bin", 3, 9, np.full(6, PHONE_INDEX["B"], np.uint8))
    labels = mask_by_given_times((word,), utterance, 10)
    assert labels.tolist() == [0, 0, 0, IGNORED, IGNORED, 7, 7, 7, 7, IGNORED]


def test_targets_share_with_their_neighbours_and_skip_the_unknown() -> None:
    targets = soft_targets(np.array([[3, 3, 5, IGNORED]], np.uint8), neighbour=0.1, smoothing=0.0)[0]
    assert np.allclose(targets[:3].sum(axis=1), 1.0)
    assert np.isclose(targets[1, 3], 0.9)
    assert np.isclose(targets[1, 5], 0.1)
    assert targets[3].sum() == 0.0


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


def test_a_window_answers_the_rows_after_its_past(speech: Float32) -> None:
    labels = (np.arange(300) % 40).astype(np.uint8)
    windows = windows_of(LabelledSignal(speech, labels), 8, 100)
    assert windows.cepstra.shape == (3, WINDOW_ROWS, 20)
    assert windows.labels[1, PAST_ROWS] == labels[108]
    assert windows.labels[0, PAST_ROWS - 9] == IGNORED  # before the recording
    assert row_weights(0.5)[-LOOK_AHEAD_ROWS:].sum() == 0.0


def test_the_served_network_gives_the_answered_rows_of_the_trained_one() -> None:
    torch.manual_seed(1)
    network = PpgNetwork(PpgConfig(hidden=8, projection=8)).eval()
    cepstra = torch.randn(3, WINDOW_ROWS, 20)
    served = ServedPpg(network)(cepstra)
    assert served.shape == (3, 4, 40)
    assert torch.allclose(served.sum(dim=2), torch.ones(3, 4))
    assert torch.equal(served, network(cepstra)[:, PAST_ROWS : PAST_ROWS + 4].exp())


def test_the_learning_rate_rises_then_falls() -> None:
    config = TrainConfig(warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.02
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


def test_accuracy_counts_what_it_says() -> None:
    p, b, s = PHONE_INDEX["P"], PHONE_INDEX["B"], PHONE_INDEX["S"]
    result = accuracy(np.array([p, p, s, SILENCE, s], np.uint8), np.array([p, b, s, SILENCE, IGNORED], np.uint8))
    assert result.rows == 4
    assert result.all_rows == 0.75
    assert result.viseme == 1.0
    assert result.bilabial_f1 == 1.0
