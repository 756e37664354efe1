"""The watermark is found at any start and frame rate, says where it is, and is not found with other keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.chance import log10_tail
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, Detector
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.payload import Payload, watermark_key
from gateway.provenance.watermark.search import SHIFTS, Part, Search
from gateway.provenance.watermark.signal import stretches
from gateway.provenance.watermark.spreading import Spreading
from services.common.array_types import UInt8
from tests.unit.provenance.watermark.faces import face_luma, parts_of

KEY = watermark_key(b"an installation")
MARK = Mark(KEY, Payload.of_film(KEY, b"what the manifest says"))


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> UInt8:
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    return np.asarray(picture[..., ::-1], np.uint8)


@pytest.mark.parametrize(("rate", "begin"), [(25.0, 0.0), (30.0, 0.0), (23.976, 0.0), (25.0, 3.33)])
def test_all_bits_are_read_at_any_frame_rate_and_start(portrait: UInt8, rate: float, begin: float) -> None:
    film = begin + np.arange(int(5.0 * rate)) / rate
    found = Detector(KEY).find(parts_of(film - begin, face_luma(portrait, film, MARK)))
    assert found is not None
    assert (found.found, found.version, found.agreeing) == (True, 2, 64)
    assert found.payload == MARK.payload


def test_a_face_without_the_mark_shows_none(portrait: UInt8) -> None:
    film = np.arange(125) / 25.0
    found = Detector(KEY).find(parts_of(film, face_luma(portrait, film, None)))
    assert found is not None
    assert not found.found


def test_squared_bits_of_wrong_keys_follow_the_stated_distribution(portrait: UInt8) -> None:
    film = np.arange(125) / 25.0
    parts = parts_of(film, face_luma(portrait, film, MARK))
    bits = np.array([Search(Spreading.of_key(watermark_key(bytes([number])))).best_shift(parts).total for number in range(12)])
    # The largest of 320 shifts, of sums of 64 squares: mean 64 and deviation 11 each.
    assert 64 < bits.mean() < 64 + 4.0 * 11.3
    chances = log10_tail(float(bits.max()), 64) + np.log10(SHIFTS)
    assert chances > FALSE_ALARM_LOG10 / 2


def test_spans_say_where_the_mark_is(portrait: UInt8) -> None:
    film = np.arange(300) / 25.0
    marked, bare = face_luma(portrait, film, MARK), face_luma(portrait, film, None)
    found = Detector(KEY).find(parts_of(film, np.where((film < 6.0)[:, None], marked, bare)))
    assert found is not None
    assert found.found
    assert found.spans[0][0] < 0.5
    assert abs(found.spans[0][1] - 6.0) < 1.0


def test_a_part_that_was_moved_in_the_film_is_found_alone(portrait: UInt8) -> None:
    film = np.arange(125) / 25.0
    here = parts_of(film, face_luma(portrait, film, None))
    there = parts_of(film, face_luma(portrait, film + 7.7, MARK))
    found = Detector(KEY).find([*here, *(replace(part, first=part.first + 200) for part in there)])
    assert found is not None
    assert (found.found, found.payload) == (True, MARK.payload)


def test_no_parts_have_no_mark() -> None:
    nothing: list[Part] = []
    assert Detector(KEY).find(nothing) is None


def test_stretches_end_at_gaps_and_cuts_and_last_a_second() -> None:
    seconds = np.concatenate([np.arange(50) / 25.0, 4.0 + np.arange(20) / 25.0, 9.0 + np.arange(100) / 25.0])
    assert stretches(seconds, [100]) == [slice(0, 50), slice(70, 100), slice(100, 170)]
