"""The face stage: faces of consecutive frames, with stable ids, and the face model of a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstage.client.arrays import from_tensor, to_image
from dubstage.client.connection import Connection
from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2 as pb
from dubstage.face.v1alpha1 import face_pb2_grpc


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A face as coefficients of a morphable model, in units of their standard deviations (of the default model, mediapipe_468).

    Attributes:
        model: its name.
        identity: float32 [I].
        expression: float32 [E].
        albedo: float32 [A]; None where the stage was given no identity.
        light: spherical harmonics, float32 [9, 3]; None likewise.
        pose: of the fitted head; of an identity it is unset.
    """

    model: str
    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    albedo: npt.NDArray[np.float32] | None
    light: npt.NDArray[np.float32] | None
    pose: common_pb2.HeadPose


@dataclass(frozen=True, slots=True)
class Face:
    """One face of one frame.

    Attributes:
        face_id: the same person keeps it.
        box: left, top, width, height in pixels.
        landmarks: float32 [478, 3], pixels, z negative towards the camera.
        mouth_landmarks: float32 [59, 3], mouth area in head space.
        pose: of the head: where head space lies in the frame.
        confidence: 0 to 1.
        mouth_visibility: how much of the mouth area is seen, 0 to 1.
        blink: closure of the eyes, 0 open to 1 shut.
        reason: DUBBED where it can be dubbed, otherwise why not (FrameReason without its prefix).
        coefficients: where `track` was asked to fit a model, else None.
        landmark_error: of that fit, mean distance of projected and measured landmarks, crop pixels (face 185 px wide).
        message: all of it as the stage answered: what `fit_identity` sends back.
    """

    face_id: int
    box: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float32]
    mouth_landmarks: npt.NDArray[np.float32]
    pose: common_pb2.HeadPose
    confidence: float
    mouth_visibility: float
    blink: float
    reason: str
    coefficients: Coefficients | None
    landmark_error: float
    message: pb.FaceTrack = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The faces of one frame; whether a new shot begins with it."""

    frame_index: int
    shot_cut: bool
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """The face model of one person.

    Attributes:
        coefficients: identity, albedo and light of the person; expression is zero.
        landmark_error: mean distance of projected and tracked landmarks, crop pixels.
        photometric_error: mean absolute difference of drawn and seen colours, 0 to 255.
        num_frames: frames that were used.
        artefact: in the stages' artefact store: for `track`, and for every RPC that takes an identity.
    """

    coefficients: Coefficients
    landmark_error: float
    photometric_error: float
    num_frames: int
    artefact: common_pb2.ArtefactRef


def track(
    connection: Connection,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    frame_rate: Fraction = Fraction(25),
    max_faces: int = 0,
    morphable_model: str = "",
    identity: Identity | common_pb2.ArtefactRef | None = None,
) -> Iterator[TrackedFrame]:
    """The faces of each frame, while frames are read.

    Args:
        connection: to the face stage.
        frames: upright pictures, uint8 RGB [H, W, 3].
        frame_rate: of them.
        max_faces: at most, a frame; 0: the stage's own number.
        morphable_model: fit this model to every face, such as "mediapipe_468"; empty: the identity's, or none.
        identity: from `fit_identity`: every face is fitted with this person's shape.

    Raises:
        DubstageCallError: the call failed.
    """

    def requests() -> Iterator[pb.TrackRequest]:
        rate = common_pb2.Rational(num=frame_rate.numerator, den=frame_rate.denominator)
        yield pb.TrackRequest(
            config=pb.TrackConfig(
                timeline=common_pb2.Timeline(frame_rate=rate),
                max_faces=max_faces,
                morphable_model=morphable_model,
                identity=identity.artefact if isinstance(identity, Identity) else identity,
            )
        )
        for index, frame in enumerate(frames):
            yield pb.TrackRequest(frame=pb.FrameChunk(frame_index=index, image=to_image(frame)))

    stub = face_pb2_grpc.FaceServiceStub(connection.channel)
    for reply in connection.stream(stub.Track, requests()):
        for frame in reply.frames:
            yield TrackedFrame(frame.frame_index, frame.shot_cut, tuple(_face(face) for face in frame.faces))


def fit_identity(
    connection: Connection, frames: Iterable[tuple[npt.NDArray[np.uint8], Face]], *, morphable_model: str = ""
) -> Identity:
    """The face model of one person: of a still picture, or of many frames of their track.

    Args:
        connection: to the face stage.
        frames: upright pictures, uint8 RGB [H, W, 3], each with the person's face in it as `track` answered; those whose reason is
            not DUBBED are passed over. They are read while they are sent.
        morphable_model: empty: the default one, mediapipe_468.

    Raises:
        DubstageCallError: the call failed; NO_USABLE_FOOTAGE where no frame shows the face well enough.
    """

    def requests() -> Iterator[pb.FitIdentityRequest]:
        yield pb.FitIdentityRequest(config=pb.FitIdentityConfig(morphable_model=morphable_model))
        for picture, face in frames:
            yield pb.FitIdentityRequest(frame=pb.FitIdentityFrame(image=to_image(picture), face=face.message))

    stub = face_pb2_grpc.FaceServiceStub(connection.channel)
    reply = connection.upload(stub.FitIdentity, requests())
    return Identity(
        _coefficients(reply.coefficients), reply.landmark_error, reply.photometric_error, reply.num_frames, reply.identity
    )


def _coefficients(message: common_pb2.MorphableModelCoefficients) -> Coefficients:
    return Coefficients(
        model=message.model,
        identity=from_tensor(message.identity),
        expression=from_tensor(message.expression),
        albedo=from_tensor(message.albedo) if message.HasField("albedo") else None,
        light=from_tensor(message.light) if message.HasField("light") else None,
        pose=message.pose,
    )


def _face(message: pb.FaceTrack) -> Face:
    left, top, width, height = message.box
    return Face(
        face_id=message.face_id,
        box=(left, top, width, height),
        landmarks=from_tensor(message.landmarks),
        mouth_landmarks=from_tensor(message.mouth_landmarks),
        pose=message.pose,
        confidence=message.confidence,
        mouth_visibility=message.mouth_visibility,
        blink=message.blink,
        reason=common_pb2.FrameReason.Name(message.reason).removeprefix("FRAME_REASON_"),
        coefficients=_coefficients(message.coefficients) if message.HasField("coefficients") else None,
        landmark_error=message.landmark_error,
        message=message,
    )
