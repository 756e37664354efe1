"""Rates and times that a request may have."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.wire.timeline import MAX_FRAMES, Timeline
from services.common.wire.timeline_messages import num_frames_from_proto, rate_from_proto, timeline_from_proto, timeline_to_proto

LARGEST = 2**63 - 1


def rational(num: int, den: int) -> common_pb2.Rational:
    return common_pb2.Rational(num=num, den=den)


def explicit(pts: list[int], num: int = 1, den: int = 1000) -> common_pb2.Timeline:
    return common_pb2.Timeline(explicit=common_pb2.FrameTimes(time_base=rational(num, den), pts=pts))


@pytest.mark.parametrize(("num", "den"), [(25, 1), (30000, 1001), (24000, 1001), (1, 3600), (1000, 1), (15, 2), (90000, 3003)])
def test_rates_of_real_footage_are_taken_exactly(num: int, den: int) -> None:
    assert rate_from_proto(rational(num, den), "rate") == Fraction(num, den)


@pytest.mark.parametrize(
    ("num", "den"),
    [
        (4611686018427387904, 1),
        (LARGEST, 1),
        (1, LARGEST),
        (25, 4611686018427387904),
        (0, 1),
        (25, 0),
        (-25, 1),
        (25, -1),
        (1001, 1),
    ],
)
def test_a_rate_that_no_footage_has_is_refused_with_its_field_and_value(num: int, den: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{num}/{den}") as caught:
        rate_from_proto(rational(num, den), "frame_rate")
    assert caught.value.field == "frame_rate"


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (explicit([0, 40, 40]), "strictly increasing.*frame 2"),
        (explicit([0, -LARGEST]), "from time zero"),
        (explicit([0, LARGEST]), "frame 1 is shown 120 h"),
        (explicit([-LARGEST - 1, LARGEST]), "from time zero"),
        (explicit([0, 25_000_000_000_000]), "from time zero"),
        (explicit(list(range(2000)), 1, 1_000_000), "more than 1000 frames per second from frame 0"),
        (explicit([0, *range(3_000_000, 3_001_500)], 1, 1_000_000), "per second from frame 1 on"),
        (explicit([0, 1], 1, LARGEST), "time_base"),
        (explicit([0, 1], LARGEST, 1), "time_base"),
        (explicit([0, 1], 1, 0), "time_base"),
        (common_pb2.Timeline(), "give frame_rate or explicit times"),
    ],
)
def test_times_that_no_footage_has_are_refused(times: common_pb2.Timeline, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        timeline_from_proto(times, "config.timeline")
    assert caught.value.field.startswith("config.timeline")


@pytest.mark.parametrize(
    ("pts", "den"),
    [
        ([-3, 0, 9], 90000),
        ([0, 1, 2, 40_000], 1000),
        (list(range(0, 90_000, 90)), 90000),
        ([5], 1),
        ([], 25),
        (list(range(1000)), 1000),
    ],
)
def test_times_of_real_footage_make_a_round_trip(pts: list[int], den: int) -> None:
    timeline = timeline_from_proto(timeline_to_proto(Timeline(pts=np.array(pts, np.int64), time_base=Fraction(1, den))), "t")
    assert timeline.pts is not None
    assert timeline.pts.tolist() == pts
    assert timeline.time_base == Fraction(1, den)


@pytest.mark.parametrize(
    ("num_frames", "timeline", "says"),
    [
        (-1, Timeline(rate=Fraction(25)), "not between 0 and"),
        (MAX_FRAMES + 1, Timeline(rate=Fraction(25)), "not between 0 and"),
        (4611686018427387904, Timeline(rate=Fraction(25)), "not between 0 and"),
        (MAX_FRAMES, Timeline(rate=Fraction(1, 3600)), "more than 120 h"),
        (4, Timeline(pts=np.arange(3)), "more than the timeline's 3 frames"),
    ],
)
def test_more_frames_than_a_stream_may_have_are_refused(num_frames: int, timeline: Timeline, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        num_frames_from_proto(num_frames, timeline, "config.num_frames")
    assert caught.value.field == "config.num_frames"


def test_as_many_frames_as_a_stream_may_have_are_taken() -> None:
    assert num_frames_from_proto(MAX_FRAMES, Timeline(rate=Fraction(25)), "n") == MAX_FRAMES
    assert num_frames_from_proto(0, Timeline(rate=Fraction(1, 3600)), "n") == 0
