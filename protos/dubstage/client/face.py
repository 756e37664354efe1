"""The face stage: faces of consecutive frames, with stable ids, and the face model of a person."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from dubstage.client import rpcs
from dubstage.client.arrays import (
    Artefact,
    Float32,
    Picture,
    Times,
    as_artefact,
    as_image,
    as_timeline,
    from_tensor,
    put_image,
    reason_name,
)
from dubstage.client.calls import Requests, stream_call, upload_call
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb


@dataclass(frozen=True, slots=True)
class Coefficients:
    """A face as coefficients of a morphable model, in units of their standard deviations (of the default model, mediapipe_468).

    Attributes:
        model: name of the model.
        identity: float32 [I].
        expression: float32 [E].
        albedo: float32 [A]; None if the stage was given no identity.
        light: spherical harmonics, float32 [9, 3]; None if the stage was given no identity.
        pose: of the fitted head; unset in the coefficients of an identity.
    """

    model: str
    identity: Float32
    expression: Float32
    albedo: Float32 | None
    light: Float32 | None
    pose: common_pb2.HeadPose


@dataclass(frozen=True, slots=True)
class Face:
    """One face of one frame.

    Attributes:
        face_id: number that the same person keeps.
        box: left, top, width, height in pixels.
        landmarks: float32 [478, 3], pixels, z negative towards the camera.
        mouth_landmarks: float32 [59, 3], mouth area in head space.
        pose: where head space lies in the frame.
        confidence: 0 to 1.
        mouth_visibility: visible part of the mouth area, 0 to 1.
        blink: closure of the eyes, 0 open to 1 shut.
        reason: DUBBED if the face can be dubbed, otherwise why not (FrameReason without its prefix).
        coefficients: if `track` was asked to fit a model, otherwise None.
        landmark_error: of that fit, mean distance of projected and measured landmarks, crop pixels (face 185 px wide).
        embedding: float32 [128], in the frames that `embed_every` of `track` asked for, otherwise None. The distance of two means
            over several frames says whether two faces are of one person.
        embedding_network: name of the network of `embedding`; empty: no embedding.
        hands: float32 [N, 21, 2], landmarks of the hands that cover a part of the lower face, pixels.
        covered_share: share of the lower face that looks covered, 0 to 1.
        message: the stage's whole answer, which `fit_identity` sends back.
    """

    face_id: int
    box: tuple[float, float, float, float]
    landmarks: Float32
    mouth_landmarks: Float32
    pose: common_pb2.HeadPose
    confidence: float
    mouth_visibility: float
    blink: float
    reason: str
    coefficients: Coefficients | None
    landmark_error: float
    message: pb.FaceTrack = field(repr=False, compare=False)
    embedding: Float32 | None = field(default=None, compare=False)
    embedding_network: str = ""
    hands: Float32 = field(default_factory=lambda: np.empty((0, 21, 2), np.float32), compare=False)
    covered_share: float = 0.0


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The faces of one frame.

    Attributes:
        frame_index: number of the frame.
        shot_cut: whether a new shot begins with the frame.
        state: in the frames that `state_every` of `track` asked for, where another call goes on after this frame; otherwise None.
    """

    frame_index: int
    shot_cut: bool
    faces: tuple[Face, ...]
    state: common_pb2.StreamState | None = field(default=None, repr=False, compare=False)


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
        reason=reason_name(message.reason),
        coefficients=_coefficients(message.coefficients) if message.HasField("coefficients") else None,
        landmark_error=message.landmark_error,
        message=message,
        embedding=from_tensor(message.embedding.vector) if message.HasField("embedding") else None,
        embedding_network=message.embedding.network,
        hands=from_tensor(message.hands) if message.HasField("hands") else np.empty((0, 21, 2), np.float32),
        covered_share=message.covered_share,
    )


def _tracked(reply: pb.TrackResponse) -> Iterator[TrackedFrame]:
    for frame in reply.frames:
        # The state is that after the last of the frames.
        state = reply.state if reply.HasField("state") and frame is reply.frames[-1] else None
        yield TrackedFrame(frame.frame_index, frame.shot_cut, tuple(_face(face) for face in frame.faces), state)


def _identity(reply: pb.FitIdentityResponse) -> Identity:
    return Identity(
        _coefficients(reply.coefficients), reply.landmark_error, reply.photometric_error, reply.num_frames, reply.identity
    )


@stream_call(rpcs.face.TRACK, _tracked)
def track(
    *,
    timeline: Times = Fraction(25),
    first_frame: int = 0,
    max_faces: int = 0,
    smoothing_half_width: int | None = None,
    morphable_model: str = "",
    identity: Artefact | None = None,
    fit_colours: bool = False,
    embed_every: int = 0,
    state_every: int = 0,
    resume: common_pb2.StreamState | None = None,
) -> Requests[Picture, pb.TrackRequest]:
    """Yield a TrackedFrame for each frame, while frames are read.

    Items are upright pictures without gaps, uint8 RGB [H, W, 3].

    Args:
        first_frame: index of the first frame.
        max_faces: largest number of faces in a frame, 1 to 8; 0: the stage's own number.
        smoothing_half_width: half width of the two-sided smoothing window, 0 to 4 frames, by which replies are late; None: 3.
        morphable_model: fit this model to every face, such as "mediapipe_468"; empty: the model of `identity`, or none.
        identity: from `fit_identity`: every face is fitted with this person's shape.
        fit_colours: fit the colours of every frame too, with the frame's own light; needs `identity`.
        embed_every: answer the embedding of a face in its first frame, and in every such frame of the face after that; 0: never.
        state_every: answer the state of the stream with each frame whose index + 1 is a multiple of this number; 0: never. The last
            `smoothing_half_width` frames of a call have no state: send as many frames more.
        resume: `state` that an earlier call with the same arguments answered; `first_frame` follows its frame.
    """
    config = pb.TrackConfig(
        timeline=as_timeline(timeline),
        max_faces=max_faces,
        smoothing_half_width=smoothing_half_width,
        morphable_model=morphable_model,
        identity=as_artefact(identity),
        fit_colours=fit_colours,
        embed_every=embed_every,
        state_every=state_every,
        resume=resume,
    )
    numbers = itertools.count(first_frame)

    def item(picture: Picture) -> pb.TrackRequest:
        request = pb.TrackRequest(frame=pb.FrameChunk(frame_index=next(numbers)))
        put_image(picture, request.frame.image)
        return request

    return Requests(pb.TrackRequest(config=config), item)


@upload_call(rpcs.face.FIT_IDENTITY, _identity)
def fit_identity(
    *, morphable_model: str = "", three_stage: bool = False
) -> Requests[tuple[Picture, Face | pb.FaceTrack], pb.FitIdentityRequest]:
    """Return the Identity of one person: from a single picture, or from many frames of their track.

    Items are pairs: an upright picture, uint8 RGB [H, W, 3], and the person's face in the picture as `track` answered. The stage
    takes the faces with the reason DUBBED and a measured yaw of at most 30 degrees, or, if there is none, the DUBBED face with the
    smallest yaw. The call fails with NO_USABLE_FOOTAGE if no frame shows the face well enough.

    Args:
        morphable_model: name of the model to fit; empty: mediapipe_468.
        three_stage: fit albedo and light by the three-stage fit of Dubbing for Everyone; False: by Gauss-Newton steps.
    """

    def item(pair: tuple[Picture, Face | pb.FaceTrack]) -> pb.FitIdentityRequest:
        picture, face = pair
        message = face.message if isinstance(face, Face) else face
        return pb.FitIdentityRequest(frame=pb.FitIdentityFrame(image=as_image(picture), face=message))

    config = pb.FitIdentityConfig(morphable_model=morphable_model, three_stage=three_stage)
    return Requests(pb.FitIdentityRequest(config=config), item)
