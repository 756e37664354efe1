"""Messages of the contracts to and from own types, where only the gateway reads or makes them.

services/common/wire/convert.py has the messages that the stages read too.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dubstage.common.v1 import common_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.media.types import MediaInfo
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.wire.convert import from_tensor, timeline_to_proto
from services.common.wire.timeline import Timeline


def timeline_of(info: MediaInfo, *, later: Fraction = Fraction(0)) -> common_pb2.Timeline:
    """Return the frame times of a video from its first frame, as a Timeline message.

    Args:
        later: is added to all times, seconds.
    """
    ticks = later / info.video.time_base
    pts = (info.video.pts - info.video.pts[0]) * ticks.denominator + ticks.numerator
    return timeline_to_proto(Timeline(pts=pts, time_base=info.video.time_base / ticks.denominator))


def reason_name(reason: int) -> str:
    """Return the name of a FrameReason without its prefix, such as NO_FACE."""
    return common_pb2.FrameReason.Name(int(reason)).removeprefix("FRAME_REASON_")  # type: ignore[arg-type]


def geometry_from_proto(message: texture_pb2.ActorGeometry) -> ActorGeometry:
    """Return the lower face of an actor from a BuildBankResponse.

    Raises:
        InvalidRequestError: an array has another dtype or shape.
    """
    return ActorGeometry(
        mean_mouth=from_tensor(message.mean_mouth, "mean_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        closed_mouth=from_tensor(message.closed_mouth, "closed_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        jaw_envelope=from_tensor(message.jaw_envelope, "jaw_envelope", dtype=np.float32, shape=(len(JAW), 3)),
        anchors=from_tensor(message.anchors, "anchors", dtype=np.float32, shape=(len(ANCHORS), 3)),
    )
