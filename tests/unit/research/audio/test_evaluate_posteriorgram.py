"""The measurement of the posteriorgram network on a training set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.audio.evaluate_posteriorgram import BILABIALS, VISEME_OF_PHONE, VISEMES, accuracy, evaluate, silence_agreement
from research.audio.recordings import IGNORED, WordSpan
from research.training.trainset import TrainSet
from services.audio.models import WEIGHTS
from services.common.errors import InvalidRequestError
from services.common.wire.phones import NUM_PHONES, PHONE_INDEX, PHONES, SILENCE
from tests.unit.research.audio.speech_sets import speech_set, write_rows


def test_there_are_39_phones_and_silence_first() -> None:
    assert NUM_PHONES == len(set(PHONES)) == 40
    assert PHONES[SILENCE] == "SIL"
    assert all(PHONES[index] == phone for phone, index in PHONE_INDEX.items())


def test_every_phone_has_exactly_one_mouth_shape() -> None:
    assert sorted(phone for group in VISEMES.values() for phone in group) == sorted(PHONES)
    names = tuple(VISEMES)
    assert all(phone in VISEMES[names[VISEME_OF_PHONE[index]]] for index, phone in enumerate(PHONES))


def test_p_b_m_look_alike() -> None:
    assert len({VISEME_OF_PHONE[PHONE_INDEX[phone]] for phone in BILABIALS}) == 1


def test_accuracy_counts_what_it_says() -> None:
    p, b, s = PHONE_INDEX["P"], PHONE_INDEX["B"], PHONE_INDEX["S"]
    result = accuracy(np.array([p, p, s, SILENCE, s], np.uint8), np.array([p, b, s, SILENCE, IGNORED], np.uint8))
    assert result.rows == 4
    assert result.all_rows == 0.75
    assert result.viseme == 1.0
    assert result.bilabial_f1 == 1.0


def test_silence_is_compared_with_the_given_times() -> None:
    guess = np.array([SILENCE, 5, 5, SILENCE], np.uint8)
    assert silence_agreement(guess, (WordSpan("sil", 0.0, 0.01), WordSpan("go", 0.01, 0.04))) == 0.75


def test_sources_apart_guesses_left_out(tmp_path: Path) -> None:
    """Sources are measured apart and guessed labels are left out."""
    rows = [replace(row, split="val") for row in speech_set(tmp_path, speakers=2, clips=2)]
    write_rows(tmp_path, [*rows[:3], replace(rows[3], phones="allphone")])
    report = evaluate(TrainSet(tmp_path), WEIGHTS, baseline=False)
    assert {source: figures["network"]["rows"] for source, figures in report.items()} == {"readers": 300, "singers": 600}
    write_rows(tmp_path, [replace(row, phones="network") for row in rows])
    with pytest.raises(InvalidRequestError, match="give transcripts"):
        evaluate(TrainSet(tmp_path), WEIGHTS, baseline=False)
