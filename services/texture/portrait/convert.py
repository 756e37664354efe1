"""Messages of RotatePortrait to and from the room's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequest
from services.common.face.crops import HeadPose
from services.common.store.artefacts import ArtefactRef
from services.common.wire.arrays import from_image, to_rgb_image, to_tensor
from services.common.wire.artefact_messages import ref_from_proto
from services.common.wire.face_messages import face_from_proto
from services.common.wire.pose_messages import pose_from_proto
from services.texture.frame_order import check_order
from services.texture.types import PortraitFrame, TurnedPortrait

MIN_PORTRAIT_SIDE: Final = 64
MAX_PORTRAIT_SIDE: Final = 8192
"""Largest side of a portrait, pixels. A side below MIN_PORTRAIT_SIDE holds no face that can be dubbed."""
_OUTSIDE_SHARE: Final = 1.0
"""Share of the portrait's sides by which landmarks may lie outside, as those of a cut-off chin or forehead."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """Input of RotatePortrait: picture uint8 [H, W, 3], landmarks float32 [478, 3] and head pose in the picture, identity."""

    picture: UInt8
    landmarks: Float32
    pose: HeadPose
    identity: ArtefactRef


def portrait_from_proto(request: pb.RotatePortraitRequest) -> Portrait:
    """Return the portrait of a RotatePortrait stream's first message.

    Raises:
        InvalidRequest: the message is no config, or its picture, landmarks, pose or identity cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    size = (config.portrait.width, config.portrait.height)
    if min(size) < MIN_PORTRAIT_SIDE or max(size) > MAX_PORTRAIT_SIDE:
        raise InvalidRequest(
            f"config.portrait: {size[0]} x {size[1]} pixels; a side has {MIN_PORTRAIT_SIDE} to {MAX_PORTRAIT_SIDE}",
            field="config.portrait",
        )
    landmarks, pose = face_from_proto(config.landmarks, config.pose, "config")
    low, high = -_OUTSIDE_SHARE * np.array(size), (1.0 + _OUTSIDE_SHARE) * np.array(size)
    if not ((landmarks[:, :2] >= low) & (landmarks[:, :2] <= high)).all():
        raise InvalidRequest(
            f"config.landmarks: points lie outside the portrait of {size[0]} x {size[1]} pixels by more than the portrait's size",
            field="config.landmarks",
        )
    return Portrait(
        picture=from_image(config.portrait, "config.portrait", channels=3),
        landmarks=landmarks,
        pose=pose,
        identity=ref_from_proto(config.identity, "config.identity"),
    )


def portrait_frame_from_proto(request: pb.RotatePortraitRequest, last: int | None) -> PortraitFrame:
    """Return a wanted pose.

    Args:
        request: the message.
        last: index of the frame before; None: there was none.

    Raises:
        InvalidRequest: the message is no frame, its index does not increase, the pose cannot be used, or blink is outside 0..1.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    frame = request.frame
    check_order(frame.frame_index, last)
    if not 0.0 <= frame.blink <= 1.0:
        raise InvalidRequest(f"frame.blink: must lie in 0..1, got {frame.blink}", field="frame.blink")
    return PortraitFrame(frame.frame_index, pose_from_proto(frame.pose, "frame.pose"), frame.blink)


def turned_to_proto(frame_index: int, turned: TurnedPortrait) -> pb.RotatePortraitResponse:
    """Return the answer for one frame."""
    return pb.RotatePortraitResponse(
        frame_index=frame_index, picture=to_rgb_image(turned.picture), landmarks=to_tensor(turned.landmarks)
    )
