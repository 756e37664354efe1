"""Domain types of the gateway to and from the contracts' messages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from services.common.actor_geometry import ANCHORS, ActorGeometry
from services.common.arrays import from_tensor, to_rgb_image, to_tensor
from services.common.artefacts import ArtefactRef
from services.common.crops import HeadPose
from services.common.landmarks import JAW, NUM_MOUTH_AREA


def pose_message(pose: HeadPose) -> common_pb2.HeadPose:
    """A HeadPose message."""
    return common_pb2.HeadPose(scale=pose.scale, rotation=pose.rotation.ravel(), translation=pose.translation)


def box_image(pixels: npt.NDArray[np.uint8]) -> common_pb2.Image:
    """A render box as an RGB8 Image."""
    return to_rgb_image(pixels)


def geometry_from(message: texture_pb2.ActorGeometry) -> ActorGeometry:
    """The actor's geometry of a BuildBankResponse."""
    return ActorGeometry(
        mean_mouth=from_tensor(message.mean_mouth, "mean_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        closed_mouth=from_tensor(message.closed_mouth, "closed_mouth", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        jaw_envelope=from_tensor(message.jaw_envelope, "jaw_envelope", dtype=np.float32, shape=(len(JAW), 3)),
        anchors=from_tensor(message.anchors, "anchors", dtype=np.float32, shape=(len(ANCHORS), 3)),
    )


def geometry_message(geometry: ActorGeometry) -> texture_pb2.ActorGeometry:
    """The message of an actor's geometry."""
    return texture_pb2.ActorGeometry(
        mean_mouth=to_tensor(np.ascontiguousarray(geometry.mean_mouth)),
        closed_mouth=to_tensor(np.ascontiguousarray(geometry.closed_mouth)),
        jaw_envelope=to_tensor(np.ascontiguousarray(geometry.jaw_envelope)),
        anchors=to_tensor(np.ascontiguousarray(geometry.anchors)),
    )


def ref_from(message: common_pb2.ArtefactRef) -> ArtefactRef:
    """An artefact reference from its message."""
    return ArtefactRef(message.uri, message.sha256, message.size_bytes)


def ref_message(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    """The message of an artefact reference."""
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
