"""Words of transcripts, rows that count, and pieces of long recordings."""

from __future__ import annotations

import numpy as np

from research.audio.labelling import WordRows, cut, mask_by_given_times, words_of
from research.audio.recordings import IGNORED, WordSpan
from services.common.wire.phones import PHONE_INDEX


def test_words_lose_their_punctuation_and_keep_apostrophes() -> None:
    assert words_of('The "forty-two line Bible", don\'t!') == ("the", "forty", "two", "line", "bible", "don't")


def test_rows_where_words_agree() -> None:
    """Rows count only where the given times name the same word."""
    spans = (WordSpan("sil", 0.0, 0.05), WordSpan("Bin", 0.05, 0.1))
    word = WordRows("bin", 3, 9, np.full(6, PHONE_INDEX["B"], np.uint8))
    assert mask_by_given_times((word,), spans, 10).tolist() == [0, 0, 0, IGNORED, IGNORED, 7, 7, 7, 7, IGNORED]


def test_long_recordings_are_cut_at_quiet_moments() -> None:
    samples = np.random.default_rng(2).standard_normal(70 * 16000).astype(np.float32)
    samples[25 * 16000 : 26 * 16000] = 0.0
    pieces = cut(samples)
    assert np.array_equal(np.concatenate(pieces), samples)
    assert max(len(piece) for piece in pieces) <= 30 * 16000
    assert 25.0 <= len(pieces[0]) / 16000 <= 26.0
    assert all(len(piece) % 160 == 0 for piece in pieces[:-1])
