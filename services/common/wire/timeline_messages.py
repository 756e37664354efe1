"""Rational and Timeline messages to and from exact numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.wire.timeline import MAX_FRAMES, Timeline, check_rate, check_span, check_times


def rate_from_proto(message: common_pb2.Rational, field: str) -> Fraction:
    """Return a frame rate, frames per second.

    Raises:
        InvalidRequest: the rate is no positive number, or lies outside MIN_RATE to MAX_RATE.
    """
    rate = _fraction(message, field)
    check_rate(rate, field)
    return rate


def timeline_from_proto(message: common_pb2.Timeline, field: str) -> Timeline:
    """Return a timeline.

    Raises:
        InvalidRequest: there is neither a rate nor times, the rate is out of range, times do not increase, lie too dense or too far
            from time zero, or the time base is no positive number.
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
    """Return how many frames of a timeline are asked for. 0: as many as the input covers.

    Raises:
        InvalidRequest: the number is outside 0 to MAX_FRAMES, the timeline has fewer frames, or the last frame is shown too late.
    """
    if not 0 <= num_frames <= MAX_FRAMES:
        raise InvalidRequest(f"{field}: {num_frames} is not between 0 and {MAX_FRAMES}", field=field)
    known = timeline.num_frames
    if known is not None and num_frames > known:
        raise InvalidRequest(f"{field}: {num_frames} is more than the timeline's {known} frames", field=field)
    check_span(timeline, num_frames, field)
    return num_frames


def timeline_to_proto(timeline: Timeline) -> common_pb2.Timeline:
    """Return a timeline as a message."""
    if timeline.rate is not None:
        return common_pb2.Timeline(frame_rate=rational_to_proto(timeline.rate))
    assert timeline.pts is not None
    times = common_pb2.FrameTimes(time_base=rational_to_proto(timeline.time_base), pts=timeline.pts.tolist())
    return common_pb2.Timeline(explicit=times)


def rational_to_proto(value: Fraction) -> common_pb2.Rational:
    """Return an exact number as a message."""
    return common_pb2.Rational(num=value.numerator, den=value.denominator)


def _fraction(message: common_pb2.Rational, field: str) -> Fraction:
    if message.den <= 0 or message.num <= 0:
        raise InvalidRequest(f"{field}: {message.num}/{message.den} is not a positive number", field=field)
    return Fraction(message.num, message.den)
