"""Messages of MatchBackgrounds to and from the room's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.array_types import Bool, Float64, Int64
from services.common.face.head_pose_vectors import POSE_SIZE, check_pose_vectors
from services.common.wire.arrays import from_tensor
from services.texture.backgrounds.match import Backgrounds


@dataclass(frozen=True, slots=True)
class FootageAndPoses:
    """Input of MatchBackgrounds: footage float64 [F, 6], usable bool [F], shot_cuts int64 [C], predicted float64 [T, 6]."""

    footage: Float64
    usable: Bool
    shot_cuts: Int64
    predicted: Float64


def matching_from_proto(request: pb.MatchBackgroundsRequest) -> FootageAndPoses:
    """Return the request's arrays.

    Raises:
        InvalidRequest: an array is missing or has another shape or type, or a pose of a usable frame is out of range.
    """
    footage = from_tensor(request.footage_poses, "footage_poses", dtype=np.float64, shape=(None, POSE_SIZE), finite=False)
    usable = from_tensor(request.usable, "usable", dtype=np.bool_, shape=(len(footage),))
    predicted = from_tensor(request.predicted_poses, "predicted_poses", dtype=np.float64, shape=(None, POSE_SIZE))
    # Poses of frames that are not usable may have any numbers.
    check_pose_vectors(np.where(usable[:, None], footage, np.eye(POSE_SIZE)[-1]), "footage_poses")
    check_pose_vectors(predicted, "predicted_poses")
    return FootageAndPoses(footage, usable, np.array(request.shot_cuts, np.int64), predicted)


def backgrounds_to_proto(backgrounds: Backgrounds) -> pb.MatchBackgroundsResponse:
    """Return the answer of MatchBackgrounds."""
    return pb.MatchBackgroundsResponse(frame_indices=backgrounds.frame_indices.tolist(), keyframes=backgrounds.keyframes.tolist())
