"""Tests of times in a video."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.sound.timecode import VideoTime, parse_time
from gateway.media.probe import probe
from gateway.media.types import VideoInfo
from services.common.errors import InvalidRequestError


@pytest.fixture
def video(carphone: Path) -> VideoInfo:
    """Ten minutes of frames at 25 a second."""
    return replace(
        probe(carphone).video,
        pts=np.arange(15_000, dtype=np.int64) + 7,
        time_base=Fraction(1, 25),
        average_rate=Fraction(25),
        last_duration=1,
    )


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0", VideoTime(Fraction(0))),
        ("12.48", VideoTime(Fraction("12.48"))),
        ("01:02.5", VideoTime(Fraction("62.5"))),
        ("1:00:00", VideoTime(Fraction(3600))),
        ("00:01:00:24", VideoTime(Fraction(60), 24)),
        ("00:01:00;02", VideoTime(Fraction(60), 2, drop=True)),
    ],
)
def test_times_are_read(text: str, time: VideoTime) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize("text", ["", "-1", "1e3", "nan", "00:61:00:00", "1:2:3:4:5", "٣", "12,5", "0" * 99])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no time: give seconds") as caught:
        parse_time(text)
    assert caught.value.field == "start"


@pytest.mark.parametrize(
    ("text", "frame"), [("0", 0), ("1.0", 25), ("1.019", 25), ("1.021", 26), ("00:00:02:03", 53), ("599.99", 14_999)]
)
def test_nearest_frame_is_taken(video: VideoInfo, text: str, frame: int) -> None:
    assert parse_time(text).frame_in(video) == frame


@pytest.mark.parametrize(
    ("text", "frame"), [("0", 0), ("1.0", 25), ("1.001", 26), ("1.04", 26), ("00:00:02:03", 53), ("599.99", 14_999)]
)
def test_preview_begins_at_or_after(video: VideoInfo, text: str, frame: int) -> None:
    """A preview begins with the first frame at or after its time; within the last frame's time, with the last frame."""
    assert parse_time(text).first_frame_in(video) == frame


def test_drop_frame_numbers_are_left_out(video: VideoInfo) -> None:
    """In drop-frame timecodes, 00:01:00;02 follows 00:00:59;29, and every tenth minute leaves out nothing (SMPTE ST 12-1)."""
    ntsc = replace(video, average_rate=Fraction(30_000, 1001), pts=np.arange(30_000, dtype=np.int64))
    assert parse_time("00:00:59;29").frame_in(ntsc) == 1799
    assert parse_time("00:01:00;02").frame_in(ntsc) == 1800
    assert parse_time("00:10:00;00").frame_in(ntsc) == 17_982
    with pytest.raises(InvalidRequestError, match=r"for 29\.97 and 59\.94"):
        parse_time("00:00:01;00").frame_in(video)


@pytest.mark.parametrize("text", ["600", "01:00:00:00"])
def test_times_after_the_end_are_refused(video: VideoInfo, text: str) -> None:
    with pytest.raises(InvalidRequestError, match="after the end of the video"):
        parse_time(text).frame_in(video)


def test_frames_beyond_the_rate_are_refused(video: VideoInfo) -> None:
    with pytest.raises(InvalidRequestError, match="no frame 25 in a second"):
        parse_time("00:00:01:25").frame_in(video)
