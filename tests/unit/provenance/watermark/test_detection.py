"""The watermark is found at any start and frame rate, says where it is, and is not found with other keys or when it was copied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gateway.provenance.watermark.detection import (
    CONFIRMED_LOG10,
    FALSE_ALARM_LOG10,
    SHIFTS,
    ContentSearch,
    Detector,
    ResponseSpan,
    log10_tail,
    seen_spans,
)
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.pattern import CELLS, ContentSigns, Spreading
from gateway.provenance.watermark.payload import PUBLIC, SECRET, Payload, watermark_key
from services.common.array_types import UInt8
from tests.unit.provenance.watermark.faces import ForgedMark, copied, marked_by, seen_face

KEY = watermark_key(b"an installation")
MARK = Mark(KEY, Payload.of_video(KEY, b"what the manifest says"))
OTHER_KEY = watermark_key(b"another installation")
FIVE_S = np.arange(125) / 25.0


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> UInt8:
    """The face of a woman, uint8 RGB [240, 240, 3]."""
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    return np.ascontiguousarray(picture[60:300, 120:360, ::-1], np.uint8)


@pytest.fixture(scope="module")
def man(carphone: Path) -> UInt8:
    """The face of a man, uint8 RGB [240, 240, 3]."""
    with av.open(str(carphone)) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="rgb24")
    return np.asarray(cv2.resize(frame[20:120, 40:140], (240, 240), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize(("rate", "begin"), [(25.0, 0.0), (30.0, 0.0), (23.976, 0.0), (25.0, 3.33)])
def test_bits_at_any_rate_and_start(portrait: UInt8, rate: float, begin: float) -> None:
    """All bits are read at any frame rate and start."""
    video = begin + np.arange(int(5.0 * rate)) / rate
    found = Detector(KEY).find(seen_face(portrait, video, marked_by(MARK)).parts(begin=begin))
    assert found is not None
    assert (found.found, found.version, found.agreeing) == (True, PUBLIC, 64)
    assert found.payload == MARK.payload
    assert (found.own, found.confirmed) == (True, True)
    assert found.log10_forged < 2 * CONFIRMED_LOG10


@pytest.mark.parametrize("key", [None, OTHER_KEY])
def test_anybody_reads_a_public_mark(portrait: UInt8, key: bytes | None) -> None:
    """A public mark is read without a key and with the key of another installation."""
    found = Detector(key).find(seen_face(portrait, FIVE_S, marked_by(MARK)).parts())
    assert found is not None
    assert (found.found, found.version, found.payload) == (True, PUBLIC, MARK.payload)
    assert (found.own, found.confirmed) == (False, False)


def test_a_secret_mark_needs_its_key(portrait: UInt8) -> None:
    secret = Mark(KEY, Payload.of_video(KEY, b"what the manifest says", public=False))
    parts = seen_face(portrait, FIVE_S, marked_by(secret)).parts()
    found = Detector(KEY).find(parts)
    assert found is not None
    assert (found.found, found.version, found.payload, found.confirmed) == (True, SECRET, secret.payload, True)
    for key in (None, OTHER_KEY):
        nothing = Detector(key).find(parts)
        assert nothing is not None
        assert not nothing.found


def test_forged_mark_is_not_confirmed(portrait: UInt8, man: UInt8) -> None:
    """Somebody who knows all but the key writes a mark that anybody reads and that the installation does not confirm."""
    forged = ForgedMark(MARK.payload, lambda step: np.random.default_rng(step).choice([-1.0, 1.0], CELLS))
    for face in (portrait, man):
        parts = seen_face(face, FIVE_S, marked_by(forged)).parts()
        for key, own in ((None, False), (KEY, True)):
            found = Detector(key).find(parts)
            assert found is not None
            assert (found.found, found.payload, found.own, found.confirmed) == (True, MARK.payload, own, False)


def test_copied_mark_other_face(portrait: UInt8, man: UInt8) -> None:
    """A mark that was copied to another face is not found."""
    for one, other in ((portrait, man), (man, portrait)):
        marked = seen_face(one, FIVE_S, marked_by(MARK))
        copy = seen_face(other, FIVE_S, copied(marked), seed=1).parts()
        for key in (KEY, None):
            own, forged = Detector(key).find(marked.parts()), Detector(key).find(copy)
            assert own is not None
            assert own.found
            assert forged is not None
            assert not forged.found
            assert forged.log10_chance > FALSE_ALARM_LOG10 / 2


def test_a_face_without_the_mark_shows_none(portrait: UInt8) -> None:
    for key in (KEY, None):
        found = Detector(key).find(seen_face(portrait, FIVE_S).parts())
        assert found is not None
        assert not found.found


def test_wrong_key_distribution(portrait: UInt8) -> None:
    """Squared bits of wrong keys follow the stated distribution."""
    parts = seen_face(portrait, FIVE_S, marked_by(MARK)).parts()
    keys = [watermark_key(bytes([number])) for number in range(12)]
    searches = [ContentSearch(Spreading.of_key(key), ContentSigns.of_key(key)) for key in keys]
    bits = np.array([search.best_shift(parts).total for search in searches])
    # The largest of 320 shifts, of sums of 64 squares: mean 64 and deviation 11 each.
    assert 64 < bits.mean() < 64 + 4.0 * 11.3
    chances = log10_tail(float(bits.max()), 64) + np.log10(SHIFTS)
    assert chances > FALSE_ALARM_LOG10 / 2


def test_spans_say_where_the_mark_is(portrait: UInt8) -> None:
    video = np.arange(300) / 25.0
    marked, bare = seen_face(portrait, video, marked_by(MARK)), seen_face(portrait, video)
    half = replace(marked, luma=np.where((video < 6.0)[:, None], marked.luma, bare.luma))
    found = Detector(KEY).find(half.parts())
    assert found is not None
    assert found.found
    assert found.spans[0][0] < 0.5
    # A window of 2 s is looked at, in steps of chips.
    assert abs(found.spans[0][1] - 6.0) < 1.2


def test_moved_part_found_alone(portrait: UInt8) -> None:
    """A part that was moved in the video is found alone."""
    here = seen_face(portrait, FIVE_S).parts()
    there = seen_face(portrait, FIVE_S + 7.7, marked_by(MARK)).parts(begin=7.7)
    found = Detector(KEY).find([*here, *(replace(part, first=part.first + 200) for part in there)])
    assert found is not None
    assert (found.found, found.payload) == (True, MARK.payload)


def test_no_parts_have_no_mark() -> None:
    nothing: list[ResponseSpan] = []
    assert Detector(KEY).find(nothing) is None


def test_spans_end_at_gaps_and_cuts() -> None:
    """Spans end at gaps and cuts and last a second."""
    seconds = np.concatenate([np.arange(50) / 25.0, 4.0 + np.arange(20) / 25.0, 9.0 + np.arange(100) / 25.0])
    assert seen_spans(seconds, [100]) == [slice(0, 50), slice(70, 100), slice(100, 170)]
