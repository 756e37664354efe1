from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from research.evaluation.bilabials import bilabial_times, find_transcript, words_of
from services.common.errors import InvalidRequestError


def read_16k(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32)


def test_words_lose_punctuation_and_case() -> None:
    assert words_of("Six spoons, of fresh-snow; it’s PEAS!") == ("six", "spoons", "of", "fresh", "snow", "it's", "peas")


def test_bilabials_found_in_order(clips: Any) -> None:
    """Each bilabial of a real sentence is found in order."""
    row = next(row for row in clips.rows(use="val", under="speech/vctk") if row.transcript)
    speech = read_16k(row.path)
    times = bilabial_times(speech, row.transcript)
    letters = sum(row.transcript.lower().count(letter) for letter in "pbm")
    assert 0 < len(times) <= letters
    assert (np.diff(times[:, 0]) > 0).all()
    lengths = times[:, 1] - times[:, 0]
    assert lengths.min() > 0.02
    assert np.median(lengths) < 0.2
    assert times[-1, 1] <= len(speech) / 16_000


def test_a_transcript_without_a_known_word_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="dictionary"):
        bilabial_times(np.zeros(16_000, np.float32), "xqzt wvvk")


def test_transcripts_beside_and_catalogue(tmp_path: Path) -> None:
    """Transcripts are found beside the clip and in a catalogue."""
    folder = tmp_path / "video"
    folder.mkdir()
    (folder / "a.txt").write_text(" plain words \n")
    (folder / "b.align").write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sil\n")
    (tmp_path / "catalogue.csv").write_text("file,transcript\nvideo/c.mp4,from the catalogue\n")
    assert find_transcript(folder / "a.mp4") == "plain words"
    assert find_transcript(folder / "b.mkv") == "bin blue"
    assert find_transcript(folder / "c.mp4") == "from the catalogue"
    assert find_transcript(folder / "d.mp4") == ""
