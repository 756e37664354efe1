"""Domain types of the gateway to and from the contracts' messages."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.media.types import MediaInfo
from services.common.actor_geometry import ANCHORS, ActorGeometry
from services.common.arrays import from_tensor
from services.common.artefacts import ArtefactRef
from services.common.crops import HeadPose
from services.common.errors import ContractBroken
from services.common.landmarks import JAW, NUM_MOUTH_AREA


def pose_message(pose: HeadPose) -> common_pb2.HeadPose:
    """A HeadPose message."""
    return common_pb2.HeadPose(scale=pose.scale, rotation=pose.rotation.ravel(), translation=pose.translation)


def pose_from(message: common_pb2.HeadPose) -> HeadPose:
    """A head pose from its message.

    Raises:
        ContractBroken: it lacks numbers.
    """
    if len(message.rotation) != 9 or len(message.translation) != 3:
        raise ContractBroken("a head pose has 9 numbers of rotation and 3 of translation")
    return HeadPose(message.scale, np.array(message.rotation).reshape(3, 3), np.array(message.translation))


def rational(value: Fraction) -> common_pb2.Rational:
    """A Rational message."""
    return common_pb2.Rational(num=value.numerator, den=value.denominator)


def timeline_of(info: MediaInfo) -> common_pb2.Timeline:
    """The footage's frame times from its first frame."""
    pts = (info.video.pts - info.video.pts[0]).tolist()
    return common_pb2.Timeline(explicit=common_pb2.FrameTimes(time_base=rational(info.video.time_base), pts=pts))


def reason_name(reason: int) -> str:
    """Name of a FrameReason without its prefix, such as NO_FACE."""
    return common_pb2.FrameReason.Name(int(reason)).removeprefix("FRAME_REASON_")  # type: ignore[arg-type]


def geometry_from(message: texture_pb2.ActorGeometry) -> ActorGeometry:
    """The actor's geometry of a BuildBankResponse."""
    return ActorGeometry(
        mean_mouth=from_tensor(message.mean_mouth, "mean_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        closed_mouth=from_tensor(message.closed_mouth, "closed_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        jaw_envelope=from_tensor(message.jaw_envelope, "jaw_envelope", dtype=np.float32, shape=(len(JAW), 3)),
        anchors=from_tensor(message.anchors, "anchors", dtype=np.float32, shape=(len(ANCHORS), 3)),
    )


def ref_from(message: common_pb2.ArtefactRef) -> ArtefactRef:
    """An artefact reference from its message."""
    return ArtefactRef(message.uri, message.sha256, message.size_bytes)
