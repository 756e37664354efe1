"""Rational and Timeline messages to and from exact numbers, with the ranges that every stage keeps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.timeline import MAX_FRAMES, Timeline, check_rate, check_span, check_times


def rate_from_proto(message: common_pb2.Rational, field: str) -> Fraction:
    """A frame rate, frames a second.

    Raises:
        InvalidRequest: it is no positive number, or lies outside MIN_RATE to MAX_RATE.
    """
    rate = _fraction(message, field)
    check_rate(rate, field)
    return rate


def timeline_from_proto(message: common_pb2.Timeline, field: str) -> Timeline:
    """A timeline.

    Raises:
        InvalidRequest: no rate and no times, a rate out of range, times that do not increase, that lie too dense, or too far from
            time zero, or a time base that is no positive number.
    """
    if message.HasField("frame_rate"):
        return Timeline(rate=rate_from_proto(message.frame_rate, f"{field}.frame_rate"))
    if not message.HasField("explicit"):
        raise InvalidRequest(f"{field}: give frame_rate or explicit times", field=field)
    where = f"{field}.explicit"
    if len(message.explicit.pts) > MAX_FRAMES:
        raise InvalidRequest(
            f"{where}.pts: {len(message.explicit.pts)} frames are more than the {MAX_FRAMES} of one timeline", field=f"{where}.pts"
        )
    pts: npt.NDArray[np.int64] = np.array(message.explicit.pts, np.int64)
    time_base = _fraction(message.explicit.time_base, f"{where}.time_base")
    check_times(pts, time_base, where)
    return Timeline(pts=pts, time_base=time_base)


def num_frames_from_proto(num_frames: int, timeline: Timeline, field: str) -> int:
    """How many frames of a timeline are asked for; 0: as many as the input covers.

    Raises:
        InvalidRequest: outside 0 to MAX_FRAMES, more than the timeline has, or the last one is shown too late.
    """
    if not 0 <= num_frames <= MAX_FRAMES:
        raise InvalidRequest(f"{field}: {num_frames} is not between 0 and {MAX_FRAMES}", field=field)
    known = timeline.num_frames
    if known is not None and num_frames > known:
        raise InvalidRequest(f"{field}: {num_frames} is not within the timeline's {known} frames", field=field)
    check_span(timeline, num_frames, field)
    return num_frames


def timeline_to_proto(timeline: Timeline) -> common_pb2.Timeline:
    """The message of a timeline."""
    if timeline.rate is not None:
        return common_pb2.Timeline(frame_rate=rational_to_proto(timeline.rate))
    assert timeline.pts is not None
    times = common_pb2.FrameTimes(time_base=rational_to_proto(timeline.time_base), pts=timeline.pts.tolist())
    return common_pb2.Timeline(explicit=times)


def rational_to_proto(value: Fraction) -> common_pb2.Rational:
    """The message of an exact number."""
    return common_pb2.Rational(num=value.numerator, den=value.denominator)


def _fraction(message: common_pb2.Rational, field: str) -> Fraction:
    if message.den <= 0 or message.num <= 0:
        raise InvalidRequest(f"{field}: {message.num}/{message.den} is not a positive number", field=field)
    return Fraction(message.num, message.den)
