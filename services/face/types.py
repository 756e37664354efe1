"""Types of the face stage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose

MAX_FACES = 8
MAX_HALF_WIDTH = 4


class Reason(StrEnum):
    """Whether the mouth of a face can be replaced in a frame, and if not, why. Names as in the contract's FrameReason."""

    DUBBED = "DUBBED"
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    PROFILE_VIEW = "PROFILE_VIEW"
    OCCLUDED_MOUTH = "OCCLUDED_MOUTH"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    OUT_OF_FRAME = "OUT_OF_FRAME"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackOptions:
    """Settings of one stream.

    Attributes:
        max_faces: faces followed at once, 1 to 8.
        half_width: half width of the smoothing window, frames, 0 to 4. Replies come this many frames after the picture.
        embed_every: a face's embedding is computed in the first frame that shows the face, and in every such frame after that; 0:
            never.

    Raises:
        InvalidRequestError: a value is out of range.
    """

    max_faces: int = 4
    half_width: int = 3
    embed_every: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_faces <= MAX_FACES:
            raise InvalidRequestError(f"max_faces must be 1 to {MAX_FACES}, got {self.max_faces}", field="config.max_faces")
        if not 0 <= self.half_width <= MAX_HALF_WIDTH:
            raise InvalidRequestError(
                f"smoothing_half_width must be 0 to {MAX_HALF_WIDTH}, got {self.half_width}",
                field="config.smoothing_half_width",
            )


@dataclass(frozen=True, slots=True)
class FaceCoefficients:
    """Coefficients of a morphable model for one face in one frame.

    Attributes:
        model: name of the model.
        identity: float32 [I], the same in every frame of a face.
        expression: float32 [E].
        albedo: float32 [A], albedo of the stream's identity; None without an identity.
        light: float32 [9, 3], light of the stream's identity; None without an identity.
        pose: weak-perspective camera of the fit, near the face's own pose.
        landmark_error: mean distance of projected and measured landmarks, crop pixels.
    """

    model: str
    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    albedo: npt.NDArray[np.float32] | None
    light: npt.NDArray[np.float32] | None
    pose: HeadPose
    landmark_error: float


@dataclass(frozen=True, slots=True, eq=False)
class FaceEmbedding:
    """Embedding of one face in one frame.

    Attributes:
        network: name of the network.
        vector: float32 [128], about 1.3 long. The Euclidean distance of two vectors compares two faces.
    """

    network: str
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """One face in one frame.

    Attributes:
        face_id: number of the person, from 0.
        box: left, top, width, height of all landmarks, frame pixels.
        landmarks: float32 [478, 3], frame pixels, smoothed.
        pose: smoothed head pose.
        mouth_landmarks: float32 [59, 3], MOUTH_AREA in head space.
        confidence: confidence of the mesh network, 0 to 1.
        mouth_visibility: 0 to 1: share of the mouth area that is in the picture, turned to the camera and not covered.
        blink: 0 eyes open to 1 shut.
        reason: DUBBED where the mouth can be replaced.
        coefficients: coefficients of the stream's morphable model; None without one.
        embedding: embedding of the face, in the frames that `embed_every` asks for.
        hands: float32 [N, 21, 2], landmarks of the hands that cover a part of the face, frame pixels, not smoothed; None: no hand.
        covered_share: share of the lower face that looks covered, 0 to 1.
    """

    face_id: int
    box: tuple[float, float, float, float]
    landmarks: npt.NDArray[np.float32]
    pose: HeadPose
    mouth_landmarks: npt.NDArray[np.float32]
    confidence: float
    mouth_visibility: float
    blink: float
    reason: Reason
    coefficients: FaceCoefficients | None = None
    embedding: FaceEmbedding | None = None
    hands: npt.NDArray[np.float32] | None = None
    covered_share: float = 0.0


@dataclass(frozen=True, slots=True)
class FrameFaces:
    """All faces of one frame, by face_id; `shot_cut` is true on the first frame of a new shot (not on frame 0)."""

    frame_index: int
    shot_cut: bool
    faces: tuple[TrackedFace, ...]
