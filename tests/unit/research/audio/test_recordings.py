"""How often clips are drawn, and which part of a recording."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from research.audio.recordings import chances, drawn, evenly, excerpt, spectral_rows
from research.training.trainset import ClipRow
from services.audio.spectral import SpectralStream
from services.common.array_types import Float32


def clip(name: str, speaker: str, seconds: float) -> ClipRow:
    return ClipRow(
        name=name, shard="00000", file=name, sha256="", source="", speaker=speaker, split="train", seconds=seconds, phones="aligned"
    )


def shares(rows: list[ClipRow], speaker_exponent: float) -> list[float]:
    return np.diff(chances(rows, speaker_exponent=speaker_exponent, guessed_weight=0.5), prepend=0.0).tolist()


def test_sampling_exponent_extremes() -> None:
    """An exponent of zero draws all speakers alike and one draws every second alike."""
    rows = [clip("a", "much", 9.0), clip("b", "much", 9.0), clip("c", "little", 2.0)]
    assert shares(rows, 0.0) == pytest.approx([0.25, 0.25, 0.5])
    assert shares(rows, 1.0) == pytest.approx([0.45, 0.45, 0.1])


def test_weights_and_guessed_labels_change_a_clips_share() -> None:
    rows = [clip("a", "x", 2.0), replace(clip("b", "y", 2.0), weight=3.0), replace(clip("c", "z", 2.0), phones="allphone")]
    assert shares(rows, 1.0) == pytest.approx([1 / 4.5, 3 / 4.5, 0.5 / 4.5])


def test_clips_are_drawn_by_their_chances() -> None:
    cumulative = chances([clip("a", "x", 1.0), clip("b", "y", 3.0)], speaker_exponent=1.0, guessed_weight=1.0)
    rng = np.random.default_rng(0)
    assert np.mean([drawn(cumulative, rng) for _ in range(2000)]) == pytest.approx(0.75, abs=0.03)


def test_check_clips_spread_over_speakers() -> None:
    """Clips of a check are spread over the speakers."""
    rows = [clip(f"{speaker}{number}", speaker, 1.0) for speaker in "abcd" for number in range(10)]
    assert [row.speaker for row in evenly(rows, 8)] == [*"aabbccdd"]
    assert len(evenly(rows, 100)) == 40


def test_an_excerpt_keeps_samples_and_labels_together() -> None:
    labels = np.arange(200, dtype=np.uint8)
    samples = labels.repeat(160).astype(np.int16)
    part = excerpt(samples, labels, 50, np.random.default_rng(3))
    assert len(part.labels) == 50
    np.testing.assert_array_equal(np.round(part.samples[::160] * 32767), part.labels)
    assert excerpt(samples, labels, 50).labels[0] == 0


def test_recording_has_rows_of_stream(speech: Float32) -> None:
    stream = SpectralStream()
    rows = np.concatenate([stream.push(speech[start : start + 777]) for start in range(0, len(speech), 777)])
    assert len(rows) >= 290
    assert np.allclose(rows, spectral_rows(speech)[: len(rows)], atol=1e-4)
