"""Embeddings of faces: 128 numbers whose distance says whether two faces are of one person.

The network is dlib's `dlib_face_recognition_resnet_model_v1` (docs/models/face_embedding.md has source, licence and figures). The
mean of the embeddings of several frames tells people apart much better than the embedding of one frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import HeadPose
from services.common.face.landmarks import LEFT_EYE_CORNERS, LIP_CORNERS, RIGHT_EYE_CORNERS
from services.common.face.sampling import sample_patch
from services.common.store.network_session import open_network
from services.face.types import FaceEmbedding

NETWORK: Final = "dlib_face_recognition_resnet_model_v1"
"""Name of the network. Embeddings of another network cannot be compared with those of this one."""
WEIGHTS: Final = Path(__file__).with_name("weights") / "face_embedding.onnx.gz"
INPUT: Final = "crops"
"""Name of the network's input, uint8 [N, 150, 150, 3], RGB."""
OUTPUT: Final = "embeddings"
"""Name of the network's output, float32 [N, 128]."""
SIDE: Final = 150
"""Side of the network's picture, pixels."""
EMBEDDING_SIZE: Final = 128
_EYES_TO_MOUTH: Final = 0.45
"""Mean distance between the centre of an eye and the middle of the mouth, as a share of SIDE."""
_CENTRE: Final = (0.5, 0.43)
"""Where the centre of both eyes and the mouth lies in the picture, as a share of SIDE."""


class EmbeddingNetwork:
    """The network on ONNX Runtime, which the first use loads in 0.1 s. It has no state: any thread may use it.

    Raises:
        ModelNotFoundError, ArtefactCorruptError: the file is missing or damaged.
    """

    def __init__(self) -> None:
        self._session = open_network(WEIGHTS, threads=1)

    def __call__(self, picture: UInt8, landmarks: Float32, pose: HeadPose) -> FaceEmbedding:
        """Return the embedding of a face.

        Args:
            picture: uint8 RGB [H, W, 3].
            landmarks: float32 [478, 3], frame pixels.
            pose: pose of the head, whose roll is taken out.
        """
        crop = aligned_crop(picture, landmarks, pose)
        (vectors,) = self._session.run([OUTPUT], {INPUT: crop[None]})
        return FaceEmbedding(NETWORK, np.asarray(vectors[0], np.float32))


def aligned_crop(picture: UInt8, landmarks: Float32, pose: HeadPose) -> UInt8:
    """Return the picture of a face as the network takes it, uint8 [150, 150, 3]: upright, with eyes and mouth at the same points.

    Size and centre are those of face-api's `alignDlib`, which does not turn the face. Turned upright, people are told apart better.
    """
    points = np.asarray(landmarks[:, :2], np.float64)
    right, left, mouth = (points[list(pair)].mean(axis=0) for pair in (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, LIP_CORNERS))
    eyes_to_mouth = (np.linalg.norm(mouth - right) + np.linalg.norm(mouth - left)) / 2
    scale = _EYES_TO_MOUTH * SIDE / max(float(eyes_to_mouth), 1e-3)
    roll = np.radians(pose.roll_degrees)
    linear = scale * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    affine = np.column_stack([linear, np.array(_CENTRE) * SIDE - linear @ (right + left + mouth) / 3])
    return sample_patch(picture, affine, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
