"""Wanted mouths in messages: the target frames of RetrieveWarp and SampleNeuralTexture."""

from __future__ import annotations

import numpy as np

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.errors import InvalidRequest
from services.common.face.crops import MAX_HEAD_PX
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.wire.arrays import from_tensor
from services.common.wire.pose_messages import pose_from_proto
from services.texture.types import TargetFrame


def wanted_mouth_from_proto(frame: pb.TargetFrame, field: str) -> TargetFrame:
    """Return a target frame.

    Args:
        frame: the message.
        field: name of the message in the request.

    Raises:
        InvalidRequest: the frame has no mouth landmarks, or its landmarks or pose cannot be used.
    """
    where = f"{field}.motion.mouth_landmarks"
    if not frame.motion.HasField("mouth_landmarks"):
        raise InvalidRequest(f"{field}.motion: mouth_landmarks are needed", field=where)
    mouth = from_tensor(frame.motion.mouth_landmarks, where, dtype=np.float32, shape=(NUM_MOUTH_AREA, 3), limit=MAX_HEAD_PX)
    return TargetFrame(frame.frame_index, mouth, pose_from_proto(frame.pose, f"{field}.pose"), frame.context_only)
