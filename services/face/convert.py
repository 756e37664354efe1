"""Messages of dubstage.face.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2 as pb
from services.common.arrays import from_image, from_tensor, to_rgb_image, to_tensor
from services.common.artefact_messages import ref_from_proto, ref_to_proto
from services.common.artefacts import ArtefactRef
from services.common.crops import MAX_FRAME_PX, MAX_HEAD_PX, face_shape_problem
from services.common.errors import InvalidRequest
from services.common.face_identity import FaceIdentity
from services.common.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.morphable_models import DEFAULT_MODEL
from services.common.pose_messages import pose_from_proto, pose_to_proto
from services.common.timeline_messages import timeline_from_proto
from services.face.types import FaceCoefficients, FrameFaces, Reason, TrackedFace, TrackOptions

_PREFIX: Final = "FRAME_REASON_"
MAX_SIDE: Final = 16_384
"""Pixels of a side of a picture."""


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """A picture, uint8 RGB [H, W, 3] (read-only), and its absolute frame index."""

    frame_index: int
    picture: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FitOrder:
    """What a stream wants fitted; `model` is empty where the identity says it."""

    model: str
    identity: ArtefactRef | None


@dataclass(frozen=True, slots=True)
class IdentityFrame:
    """A picture, uint8 RGB [H, W, 3] (read-only), and one face in it."""

    picture: npt.NDArray[np.uint8]
    face: TrackedFace


def options_from_proto(request: pb.TrackRequest) -> TrackOptions:
    """What a stream's first message asks for.

    Raises:
        InvalidRequest: the first message is not a config, or a value is out of range.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    if config.HasField("timeline"):
        timeline_from_proto(config.timeline, "config.timeline")  # tracking goes by frames; a wrong one is refused all the same
    default = TrackOptions()
    return TrackOptions(
        max_faces=config.max_faces or default.max_faces,
        half_width=config.smoothing_half_width if config.HasField("smoothing_half_width") else default.half_width,
    )


def options_to_proto(
    options: TrackOptions, timeline: common_pb2.Timeline | None = None, fitting: FitOrder | None = None
) -> pb.TrackRequest:
    """The first message of a stream."""
    config = pb.TrackConfig(timeline=timeline, max_faces=options.max_faces, smoothing_half_width=options.half_width)
    if fitting is not None:
        config.morphable_model = fitting.model
        if fitting.identity is not None:
            config.identity.CopyFrom(ref_to_proto(fitting.identity))
    return pb.TrackRequest(config=config)


def fitting_from_proto(request: pb.TrackRequest) -> FitOrder | None:
    """What a stream's first message wants fitted; None: nothing.

    Raises:
        InvalidRequest: the reference of the identity is malformed.
    """
    config = request.config
    identity = None
    if config.HasField("identity"):
        identity = ref_from_proto(config.identity, "config.identity")
    return None if not config.morphable_model and identity is None else FitOrder(config.morphable_model, identity)


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
        _check_size(request.frame.image, "frame.image")
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
    message = pb.FaceTrack(
        face_id=face.face_id,
        box=face.box,
        landmarks=to_tensor(face.landmarks),
        pose=pose_to_proto(face.pose),
        mouth_landmarks=to_tensor(face.mouth_landmarks),
        confidence=face.confidence,
        mouth_visibility=face.mouth_visibility,
        blink=face.blink,
        reason=common_pb2.FrameReason.Value(_PREFIX + face.reason),
    )
    if face.coefficients is not None:
        message.coefficients.CopyFrom(coefficients_to_proto(face.coefficients))
        message.landmark_error = face.coefficients.landmark_error
    return message


def face_from_proto(message: pb.FaceTrack) -> TrackedFace:
    """One face.

    Raises:
        InvalidRequest: wrong shapes, numbers that are not finite, or a reason that no face has.
    """
    if len(message.box) != 4 or not all(abs(number) <= 4.0 * MAX_FRAME_PX for number in message.box):
        raise InvalidRequest(f"face.box: needs 4 finite numbers, got {list(message.box)[:8]}", field="face.box")
    for name in ("confidence", "mouth_visibility", "blink", "landmark_error"):
        if not math.isfinite(getattr(message, name)):
            raise InvalidRequest(f"face.{name}: is not a finite number", field=f"face.{name}")
    number = message.reason
    name = common_pb2.FrameReason.Name(number) if number in common_pb2.FrameReason.values() else str(number)
    if name.removeprefix(_PREFIX) not in Reason.__members__:
        raise InvalidRequest(f"face.reason: a face has no reason {name}", field="face.reason")
    left, top, width, height = message.box
    return TrackedFace(
        face_id=message.face_id,
        box=(left, top, width, height),
        landmarks=from_tensor(message.landmarks, "face.landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3), limit=MAX_FRAME_PX),
        pose=pose_from_proto(message.pose, "face.pose"),
        mouth_landmarks=from_tensor(
            message.mouth_landmarks, "face.mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3), limit=MAX_HEAD_PX
        ),
        confidence=message.confidence,
        mouth_visibility=message.mouth_visibility,
        blink=message.blink,
        reason=Reason(name.removeprefix(_PREFIX)),
        coefficients=_face_coefficients(message),
    )


def coefficients_to_proto(coefficients: FaceCoefficients) -> common_pb2.MorphableModelCoefficients:
    """The message of one face's coefficients."""
    message = common_pb2.MorphableModelCoefficients(
        model=coefficients.model,
        identity=to_tensor(coefficients.identity),
        expression=to_tensor(coefficients.expression),
        pose=pose_to_proto(coefficients.pose),
    )
    if coefficients.albedo is not None and coefficients.light is not None:
        message.albedo.CopyFrom(to_tensor(coefficients.albedo))
        message.light.CopyFrom(to_tensor(coefficients.light))
    return message


def model_from_proto(request: pb.FitIdentityRequest) -> str:
    """The model that the first message of FitIdentity names.

    Raises:
        InvalidRequest: it is not a config.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    return request.config.morphable_model or DEFAULT_MODEL


def identity_frame_from_proto(request: pb.FitIdentityRequest) -> IdentityFrame:
    """A later message of FitIdentity.

    Raises:
        InvalidRequest: no frame, a picture that is not RGB8, or a face that breaks the contract.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must hold a frame", field="frame")
    _check_size(request.frame.image, "frame.image")
    picture = from_image(request.frame.image, "frame.image", channels=3)
    face = face_from_proto(request.frame.face)
    if problem := face_shape_problem(face.landmarks):
        raise InvalidRequest(f"frame.face.landmarks: these points are no face: {problem}", field="frame.face.landmarks")
    return IdentityFrame(picture, face)


def identity_frame_to_proto(picture: npt.NDArray[np.uint8], face: TrackedFace) -> pb.FitIdentityRequest:
    """The message of a frame, uint8 RGB [H, W, 3]."""
    return pb.FitIdentityRequest(frame=pb.FitIdentityFrame(image=to_rgb_image(picture), face=face_to_proto(face)))


def identity_to_proto(identity: FaceIdentity, num_expression: int, ref: ArtefactRef) -> pb.FitIdentityResponse:
    """The answer of FitIdentity."""
    return pb.FitIdentityResponse(
        coefficients=common_pb2.MorphableModelCoefficients(
            model=identity.model,
            identity=to_tensor(identity.identity),
            expression=to_tensor(np.zeros(num_expression, np.float32)),
            albedo=to_tensor(identity.albedo),
            light=to_tensor(identity.light),
        ),
        landmark_error=identity.landmark_error,
        photometric_error=identity.photometric_error,
        identity=ref_to_proto(ref),
        num_frames=identity.num_frames,
    )


def _check_size(image: common_pb2.Image, field: str) -> None:
    if max(image.width, image.height) > MAX_SIDE:
        raise InvalidRequest(f"{field}: {image.width} x {image.height} pixels; a side has at most {MAX_SIDE}", field=field)


def _face_coefficients(message: pb.FaceTrack) -> FaceCoefficients | None:
    if not message.HasField("coefficients"):
        return None
    found, field = message.coefficients, "face.coefficients"
    lit = found.HasField("light") and found.HasField("albedo")
    return FaceCoefficients(
        model=found.model,
        identity=from_tensor(found.identity, f"{field}.identity", dtype=np.float32, shape=(None,)),
        expression=from_tensor(found.expression, f"{field}.expression", dtype=np.float32, shape=(None,)),
        albedo=from_tensor(found.albedo, f"{field}.albedo", dtype=np.float32, shape=(None,)) if lit else None,
        light=from_tensor(found.light, f"{field}.light", dtype=np.float32, shape=(9, 3)) if lit else None,
        pose=pose_from_proto(found.pose, f"{field}.pose"),
        landmark_error=message.landmark_error,
    )
