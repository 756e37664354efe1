"""Speech features of the frames of a video, at any frame rate and lag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.sound.speech import AlignedSpeech
from gateway.dub.state.records import FEATURE_RECORD, RecordFile

NUM_RECORDS = 30


@pytest.fixture
def features(tmp_path: Path) -> Iterator[RecordFile]:
    """Records whose posteriorgram row of 10 ms number n is n + 1 everywhere; 0 is left for what is outside."""
    records = np.zeros(NUM_RECORDS, FEATURE_RECORD)
    records["posteriorgram"] = np.arange(1, 4 * NUM_RECORDS + 1, dtype=np.float32).reshape(-1, 4, 1)
    with RecordFile(tmp_path / "speech.bin", FEATURE_RECORD) as file:
        file.append(records)
        yield file


def rows_of(spoken: AlignedSpeech, *frames: int) -> list[list[int]]:
    """The number of each row of the features: n of the row that begins at 10 n ms, -1 outside."""
    found = spoken.around(np.array(frames, np.int64))
    assert found.shape == (len(frames), 20, 40)
    assert found.dtype == np.float32
    assert (found == found[..., :1]).all()
    return [(one[:, 0] - 1).astype(int).tolist() for one in found]


def test_grid_frame_hears_three_frames_ahead(features: RecordFile) -> None:
    """A frame of the motion grid hears one frame before it and three after it."""
    spoken = AlignedSpeech(features, np.arange(NUM_RECORDS) / 25)
    assert rows_of(spoken, 2, 10) == [list(range(4, 24)), list(range(36, 56))]


def test_outside_the_speech_there_are_zeros(features: RecordFile) -> None:
    spoken = AlignedSpeech(features, np.arange(100) / 25)
    first, last, after, far = rows_of(spoken, 0, 29, 30, 90)
    assert first == [-1] * 4 + list(range(16))
    assert last == list(range(112, 120)) + [-1] * 12
    assert after == list(range(116, 120)) + [-1] * 16
    assert far == [-1] * 20


def test_nearest_row_between_frames(features: RecordFile) -> None:
    """Between frames of the grid, the nearest row counts."""
    at_30 = rows_of(AlignedSpeech(features, np.arange(NUM_RECORDS) / 30), 9, 10, 11)
    assert at_30 == [list(range(26, 46)), list(range(29, 49)), list(range(33, 53))]
    assert rows_of(AlignedSpeech(features, np.array([0.0, 0.5])), 1) == [list(range(46, 66))]


@pytest.mark.parametrize("lag", [3, -3, -40])
def test_the_lag_moves_what_is_heard(lag: int, features: RecordFile) -> None:
    seconds = np.arange(60) / 25
    moved = rows_of(AlignedSpeech(features, seconds, lag_frames=lag), 12)
    assert moved == rows_of(AlignedSpeech(features, seconds), 12 + lag) if lag > -12 else moved == [[-1] * 20]


def test_no_frames_have_no_features(features: RecordFile) -> None:
    assert AlignedSpeech(features, np.arange(5) / 25).around(np.empty(0, np.int64)).shape == (0, 20, 40)
