"""Messages of dubstage.face.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from services.common.errors import InvalidRequestError
from services.common.face.crops import MAX_FRAME_PX, MAX_HEAD_PX, face_shape_problem
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.face.morphable_models import DEFAULT_MODEL
from services.common.store.artefacts import ArtefactRef
from services.common.wire.messages import (
    from_image,
    from_tensor,
    pose_from_proto,
    pose_to_proto,
    ref_from_proto,
    ref_to_proto,
    timeline_from_proto,
)
from services.face.types import FaceCoefficients, FrameFaces, Reason, TrackedFace, TrackOptions

_PREFIX: Final = "FRAME_REASON_"
MAX_SIDE: Final = 16_384
"""Largest side of a picture, pixels."""


@dataclass(frozen=True, slots=True)
class NumberedPicture:
    """Picture, uint8 RGB [H, W, 3] (read-only), and its absolute frame index."""

    frame_index: int
    picture: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FitOrder:
    """Fit of a stream.

    Attributes:
        model: name of the model; empty where the identity names the model.
        identity: the person; None: fitted on the stream.
        colours: whether the colours of every frame are fitted too.
    """

    model: str
    identity: ArtefactRef | None
    colours: bool = False


@dataclass(frozen=True, slots=True)
class IdentityOrder:
    """Fit of a person. Attributes: model: its name; three_stage: whether stages 1 and 2 of the three-stage fit are used."""

    model: str
    three_stage: bool


@dataclass(frozen=True, slots=True)
class IdentityFrame:
    """A picture, uint8 RGB [H, W, 3] (read-only), and one face in it."""

    picture: npt.NDArray[np.uint8]
    face: TrackedFace


def options_from_proto(request: pb.TrackRequest) -> TrackOptions:
    """Return the options of a stream's first message.

    Raises:
        InvalidRequestError: the first message is not a config, or a value is out of range.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    if config.HasField("timeline"):
        timeline_from_proto(
            config.timeline, "config.timeline"
        )  # tracking needs no timeline; a wrong timeline is refused all the same
    default = TrackOptions()
    return TrackOptions(
        max_faces=config.max_faces or default.max_faces,
        half_width=config.smoothing_half_width if config.HasField("smoothing_half_width") else default.half_width,
        embed_every=config.embed_every,
    )


def fitting_from_proto(request: pb.TrackRequest) -> FitOrder | None:
    """Return the fit of a stream's first message; None: no fit.

    Raises:
        InvalidRequestError: the reference of the identity is malformed, or colours are to be fitted without an identity.
    """
    config = request.config
    if config.fit_colours and not config.HasField("identity"):
        raise InvalidRequestError(
            "config.fit_colours needs config.identity: FitIdentity finds the person's albedo", field="config.fit_colours"
        )
    identity = None
    if config.HasField("identity"):
        identity = ref_from_proto(config.identity, "config.identity")
    return (
        None if not config.morphable_model and identity is None else FitOrder(config.morphable_model, identity, config.fit_colours)
    )


def picture_from_proto(request: pb.TrackRequest, before: NumberedPicture | None) -> NumberedPicture:
    """Return one frame.

    Args:
        before: the frame before it.

    Raises:
        InvalidRequestError: the message has no frame, the index is negative or leaves a gap, the picture has another size than the
            frame before, or the picture is not RGB8.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must hold a frame", field="frame")
    index = request.frame.frame_index
    if before is None:
        if index < 0:
            raise InvalidRequestError(f"frame.frame_index: must not be negative, got {index}", field="frame.frame_index")
        _check_size(request.frame.image, "frame.image")
        return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3))
    if index != before.frame_index + 1:
        raise InvalidRequestError(
            f"frame.frame_index: frame {before.frame_index + 1} must follow, got {index}", field="frame.frame_index"
        )
    height, width = before.picture.shape[:2]
    return NumberedPicture(index, from_image(request.frame.image, "frame.image", channels=3, size=(width, height)))


def frames_to_proto(frames: Sequence[FrameFaces]) -> pb.TrackResponse:
    """Return the reply with these frames."""
    return pb.TrackResponse(
        frames=[
            pb.FrameFaces(
                frame_index=frame.frame_index, shot_cut=frame.shot_cut, faces=[face_to_proto(face) for face in frame.faces]
            )
            for frame in frames
        ]
    )


def face_to_proto(face: TrackedFace) -> pb.FaceTrack:
    """Return one face as a message."""
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
        covered_share=face.covered_share,
    )
    if face.coefficients is not None:
        message.coefficients.CopyFrom(coefficients_to_proto(face.coefficients))
        message.landmark_error = face.coefficients.landmark_error
    if face.embedding is not None:
        message.embedding.network = face.embedding.network
        message.embedding.vector.CopyFrom(to_tensor(face.embedding.vector))
    if face.hands is not None:
        message.hands.CopyFrom(to_tensor(face.hands))
    return message


def face_from_proto(message: pb.FaceTrack) -> TrackedFace:
    """Return one face.

    Raises:
        InvalidRequestError: a shape is wrong, a number is not finite, or the reason is no reason of a face.
    """
    if len(message.box) != 4 or not all(abs(number) <= 4.0 * MAX_FRAME_PX for number in message.box):
        raise InvalidRequestError(f"face.box: needs 4 finite numbers, got {list(message.box)[:8]}", field="face.box")
    for name in ("confidence", "mouth_visibility", "blink", "landmark_error"):
        if not math.isfinite(getattr(message, name)):
            raise InvalidRequestError(f"face.{name}: is not a finite number", field=f"face.{name}")
    number = message.reason
    name = common_pb2.FrameReason.Name(number) if number in common_pb2.FrameReason.values() else str(number)
    if name.removeprefix(_PREFIX) not in Reason.__members__:
        raise InvalidRequestError(f"face.reason: a face has no reason {name}", field="face.reason")
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
    """Return the coefficients of one face as a message."""
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


def identity_order_from_proto(request: pb.FitIdentityRequest) -> IdentityOrder:
    """Return what the first message of FitIdentity orders.

    Raises:
        InvalidRequestError: the message is no config.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    return IdentityOrder(request.config.morphable_model or DEFAULT_MODEL, request.config.three_stage)


def identity_frame_from_proto(request: pb.FitIdentityRequest) -> IdentityFrame:
    """Return a later message of FitIdentity.

    Raises:
        InvalidRequestError: no frame, a picture that is not RGB8, or a face that breaks the contract.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must hold a frame", field="frame")
    _check_size(request.frame.image, "frame.image")
    picture = from_image(request.frame.image, "frame.image", channels=3)
    face = face_from_proto(request.frame.face)
    if problem := face_shape_problem(face.landmarks):
        raise InvalidRequestError(f"frame.face.landmarks: these points are no face: {problem}", field="frame.face.landmarks")
    return IdentityFrame(picture, face)


def identity_to_proto(identity: FaceIdentity, num_expression: int, ref: ArtefactRef) -> pb.FitIdentityResponse:
    """Return the answer of FitIdentity."""
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
        raise InvalidRequestError(f"{field}: {image.width} x {image.height} pixels; a side has at most {MAX_SIDE}", field=field)


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
