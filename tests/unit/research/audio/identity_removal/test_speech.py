"""The division of speech into what is learned from and what is held out, and the segments that are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from research.audio.identity_removal.speech import (
    GAP_ROWS,
    SegmentSampler,
    TrainingSpeech,
    divided,
    global_speaker,
    read_speech_rows,
)
from research.training.trainset import TrainSet
from services.common.array_types import Float32
from tests.unit.research.audio.speech_sets import speech_set


def test_third_recording_held_out(tmp_path: Path) -> None:
    """Every third recording is held out and copies count as other speakers."""
    rows = [row for row in speech_set(tmp_path, speakers=3, clips=4) if row.split == "train"]
    parts = divided(rows, (1.0, 0.9))
    assert len(parts) == 2 * len(rows)
    assert {part.speaker for part in parts} == {"s0", "s1", "s0@0.9", "s1@0.9"}
    assert {part.row.name for part in parts if part.half == "held_out"} == {"s0__2", "s1__2"}


def test_a_lone_recording_is_cut_with_a_gap(tmp_path: Path) -> None:
    (row, _) = speech_set(tmp_path, speakers=2, clips=1)
    first, rest = divided([row])
    assert (first.half, rest.half) == ("train", "held_out")
    heard = read_speech_rows(TrainSet(tmp_path), row)
    assert len(heard.rows) == 300
    assert (len(heard.cut(first).rows), len(heard.cut(rest).rows)) == (180, 120 - GAP_ROWS)
    assert (first.num_rows, rest.num_rows) == (180, 120 - GAP_ROWS)


def test_faster_copy_same_phones(tmp_path: Path) -> None:
    """A faster copy has fewer rows and the same phones."""
    (row, _) = speech_set(tmp_path, speakers=2, clips=1)
    data = TrainSet(tmp_path)
    whole, faster = read_speech_rows(data, row), read_speech_rows(data, row, 1.2)
    assert len(faster.rows) == len(faster.labels) == 250
    assert (faster.labels == whole.labels[np.minimum((np.arange(250) + 0.5) * 1.2, 299).astype(int)]).all()


def test_segments_come_from_nearly_equal_shares_of_speakers(tmp_path: Path) -> None:
    rows = speech_set(tmp_path, speakers=3, clips=2)
    sampler = SegmentSampler(TrainingSpeech(TrainSet(tmp_path)), divided(rows[:3]), 64, exponent=0.0)
    batch = sampler.draw(np.random.default_rng(0), 200)
    assert batch.rows.shape == (200, 64, 20)
    assert batch.labels.shape == (200, 64)
    assert np.bincount(batch.speakers).tolist() == pytest.approx([100, 100], abs=25)
    again = sampler.draw(np.random.default_rng(0), 200)
    assert batch.rows.tobytes() == again.rows.tobytes()


def test_the_global_speaker_counts_every_speaker_alike() -> None:
    rng = np.random.default_rng(0)
    phones, offsets = rng.standard_normal((40, 20)), rng.standard_normal((2, 20))

    def speech(counts: tuple[int, int]) -> Iterator[tuple[str, Float32, npt.NDArray[np.uint8]]]:
        labels = np.arange(40, dtype=np.uint8).repeat(4)
        for speaker, count in enumerate(counts):
            for _ in range(count):
                yield f"s{speaker}", (phones[labels] + offsets[speaker]).astype(np.float32), labels

    np.testing.assert_allclose(global_speaker(speech((1, 1))), phones + offsets.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(global_speaker(speech((3, 1))), global_speaker(speech((1, 1))), atol=1e-5)
