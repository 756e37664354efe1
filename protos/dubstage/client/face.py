"""The face stage: faces of consecutive frames, with stable ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dubstage.client.arrays import from_tensor, to_image
from dubstage.client.connection import Connection
from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2 as pb
from dubstage.face.v1alpha1 import face_pb2_grpc


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
        reason: DUBBED where it can be dubbed, otherwise why not (FrameReason without its prefix).
    """

    face_id: int
    box: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float32]
    mouth_landmarks: npt.NDArray[np.float32]
    pose: common_pb2.HeadPose
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """The faces of one frame; whether a new shot begins with it."""

    frame_index: int
    shot_cut: bool
    faces: tuple[Face, ...]


def track(
    connection: Connection,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    frame_rate: Fraction = Fraction(25),
    max_faces: int = 0,
) -> Iterator[TrackedFrame]:
    """The faces of each frame, while frames are read.

    Args:
        connection: to the face stage.
        frames: upright pictures, uint8 RGB [H, W, 3].
        frame_rate: of them.
        max_faces: at most, a frame; 0: the stage's own number.

    Raises:
        DubstageCallError: the call failed.
    """

    def requests() -> Iterator[pb.TrackRequest]:
        rate = common_pb2.Rational(num=frame_rate.numerator, den=frame_rate.denominator)
        yield pb.TrackRequest(config=pb.TrackConfig(timeline=common_pb2.Timeline(frame_rate=rate), max_faces=max_faces))
        for index, frame in enumerate(frames):
            yield pb.TrackRequest(frame=pb.FrameChunk(frame_index=index, image=to_image(frame)))

    stub = face_pb2_grpc.FaceServiceStub(connection.channel)
    for reply in connection.stream(stub.Track, requests()):
        for frame in reply.frames:
            yield TrackedFrame(frame.frame_index, frame.shot_cut, tuple(_face(face) for face in frame.faces))


def _face(message: pb.FaceTrack) -> Face:
    left, top, width, height = message.box
    return Face(
        face_id=message.face_id,
        box=(left, top, width, height),
        landmarks=from_tensor(message.landmarks),
        mouth_landmarks=from_tensor(message.mouth_landmarks),
        pose=message.pose,
        confidence=message.confidence,
        reason=common_pb2.FrameReason.Name(message.reason).removeprefix("FRAME_REASON_"),
    )
