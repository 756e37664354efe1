"""Face records of a frame: what the tracker says of each face, and the render box that is cut from the frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dubstage.face.v1alpha1 import face_pb2
from gateway.pipeline.records import FACE_RECORD, pose_of
from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.face.sampling import sample_patch
from services.common.wire.arrays import from_tensor


def face_records(frame: face_pb2.FrameFaces, rgb: UInt8, scale: float) -> npt.NDArray[np.void]:
    """Return the FACE_RECORDs of a frame.

    Args:
        frame: answer of the tracker.
        rgb: the frame, uint8 [H, W, 3].
        scale: pixels of the frame per pixel of the picture that the tracker saw.
    """
    rows = np.zeros(len(frame.faces), dtype=FACE_RECORD)
    for row, face in zip(rows, frame.faces, strict=True):
        row["frame"], row["face_id"], row["reason"] = frame.frame_index, face.face_id, face.reason
        row["confidence"], row["visibility"], row["blink"] = face.confidence, face.mouth_visibility, face.blink
        row["box"] = np.array(face.box, dtype=np.float32) * scale
        # The centre of pixel x of a reduced picture is at scale * (x + 0.5) - 0.5 of the full picture.
        offset = 0.5 * (scale - 1.0)
        landmarks = from_tensor(face.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)) * scale
        landmarks[:, :2] += offset
        row["landmarks"] = landmarks
        row["scale"] = face.pose.scale * scale
        row["rotation"] = np.array(face.pose.rotation).reshape(3, 3)
        row["translation"] = np.array(face.pose.translation) * scale + np.array([offset, offset, 0.0])
        row["mouth"] = from_tensor(face.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
        row["pixels"] = cut_box(rgb, pose_of(row))
    return rows


def cut_box(rgb: UInt8, pose: HeadPose) -> UInt8:
    """Return the render box of a face, uint8 [160, 160, 3], from the upright frame uint8 [H, W, 3].

    Pixels outside the frame repeat the edge of the frame. If the face is larger than in the box, the picture is low-pass filtered
    first, against aliasing.
    """
    return sample_patch(rgb, box_from_frame(pose), (BOX_SIZE, BOX_SIZE))
