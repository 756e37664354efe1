"""Messages of dubstage.face.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2 as pb
from services.common.arrays import from_image, from_tensor, to_rgb_image, to_tensor
from services.common.crops import HeadPose
from services.common.errors import InvalidRequest, ModelNotFound
from services.common.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.face.types import FrameFaces, Reason, TrackedFace, TrackOptions

_PREFIX: Final = "FRAME_REASON_"


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """A picture, uint8 RGB [H, W, 3] (read-only), and its absolute frame index."""

    frame_index: int
    picture: npt.NDArray[np.uint8]


def options_from_proto(request: pb.TrackRequest) -> TrackOptions:
    """What a stream's first message asks for.

    Raises:
        InvalidRequest: the first message is not a config, or a value is out of range.
        ModelNotFound: it asks for a morphable model, of which this release has none.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    if config.morphable_model:
        raise ModelNotFound(
            f"this release of the face stage has no morphable model {config.morphable_model!r}; leave morphable_model empty",
            resource=config.morphable_model,
        )
    default = TrackOptions()
    return TrackOptions(
        max_faces=config.max_faces or default.max_faces,
        half_width=config.smoothing_half_width if config.HasField("smoothing_half_width") else default.half_width,
    )


def options_to_proto(options: TrackOptions, timeline: common_pb2.Timeline | None = None) -> pb.TrackRequest:
    """The first message of a stream."""
    return pb.TrackRequest(
        config=pb.TrackConfig(timeline=timeline, max_faces=options.max_faces, smoothing_half_width=options.half_width)
    )


def picture_from_proto(request: pb.TrackRequest, before: NumberedPicture | None) -> NumberedPicture:
    """One frame.

    Args:
        request: the message.
        before: the frame before it.

    Raises:
        InvalidRequest: no frame, a negative index, a gap, another size than the frame before, or a picture that is not RGB8.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must hold a frame", field="frame")
    index = request.frame.frame_index
    if before is None:
        if index < 0:
            raise InvalidRequest(f"frame.frame_index: must not be negative, got {index}", field="frame.frame_index")
        return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3))
    if index != before.frame_index + 1:
        raise InvalidRequest(
            f"frame.frame_index: frame {before.frame_index + 1} must follow, got {index}", field="frame.frame_index"
        )
    height, width = before.picture.shape[:2]
    return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3, size=(width, height)))


def picture_to_proto(frame_index: int, picture: npt.NDArray[np.uint8]) -> pb.TrackRequest:
    """The message of one frame, uint8 RGB [H, W, 3]."""
    return pb.TrackRequest(frame=pb.FrameChunk(frame_index=frame_index, image=to_rgb_image(picture)))


def frames_to_proto(frames: Sequence[FrameFaces]) -> pb.TrackResponse:
    """The reply with these frames."""
    return pb.TrackResponse(
        frames=[
            pb.FrameFaces(
                frame_index=frame.frame_index, shot_cut=frame.shot_cut, faces=[face_to_proto(face) for face in frame.faces]
            )
            for frame in frames
        ]
    )


def frames_from_proto(response: pb.TrackResponse) -> list[FrameFaces]:
    """Frames of a reply.

    Raises:
        InvalidRequest: a tensor or reason that breaks the contract.
    """
    return [
        FrameFaces(frame.frame_index, frame.shot_cut, tuple(face_from_proto(face) for face in frame.faces))
        for frame in response.frames
    ]


def face_to_proto(face: TrackedFace) -> pb.FaceTrack:
    """The message of one face."""
    pose = common_pb2.HeadPose(
        scale=face.pose.scale,
        rotation=face.pose.rotation.ravel().tolist(),
        translation=face.pose.translation.tolist(),
    )
    return pb.FaceTrack(
        face_id=face.face_id,
        box=face.box,
        landmarks=to_tensor(face.landmarks),
        pose=pose,
        mouth_landmarks=to_tensor(face.mouth_landmarks),
        confidence=face.confidence,
        mouth_visibility=face.mouth_visibility,
        blink=face.blink,
        reason=common_pb2.FrameReason.Value(_PREFIX + face.reason),
    )


def face_from_proto(message: pb.FaceTrack) -> TrackedFace:
    """One face.

    Raises:
        InvalidRequest: wrong shapes, numbers that are not finite, or a reason that no face has.
    """
    if len(message.box) != 4 or len(message.pose.rotation) != 9 or len(message.pose.translation) != 3:
        raise InvalidRequest("face: box needs 4 numbers, pose.rotation 9, pose.translation 3", field="face.pose")
    number = message.reason
    name = common_pb2.FrameReason.Name(number) if number in common_pb2.FrameReason.values() else str(number)
    if name.removeprefix(_PREFIX) not in Reason.__members__:
        raise InvalidRequest(f"face.reason: a face has no reason {name}", field="face.reason")
    left, top, width, height = message.box
    return TrackedFace(
        face_id=message.face_id,
        box=(left, top, width, height),
        landmarks=from_tensor(message.landmarks, "face.landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)),
        pose=HeadPose(message.pose.scale, np.array(message.pose.rotation).reshape(3, 3), np.array(message.pose.translation)),
        mouth_landmarks=from_tensor(message.mouth_landmarks, "face.mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3)),
        confidence=message.confidence,
        mouth_visibility=message.mouth_visibility,
        blink=message.blink,
        reason=Reason(name.removeprefix(_PREFIX)),
    )
