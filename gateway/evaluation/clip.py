"""The real film of an evaluation: its face crops, its head poses, and its lower faces at the footage's own resolution."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from gateway.evaluation.native import NativeTruth, footage_patch
from gateway.media.reader import VideoReader, to_rgb
from gateway.pipeline.messages import reason_name
from gateway.pipeline.native_boxes import native_luma, scale_of
from gateway.pipeline.plan import DUBBED
from gateway.pipeline.records import pose_of
from gateway.pipeline.shot import Shot
from services.common.array_types import Float64, UInt8
from services.common.face.crops import BOX_ORIGIN, BOX_SIZE, CROP_SIZE, crop_from_frame
from services.common.face.head_pose_vectors import POSE_SIZE, pose_vectors
from services.common.face.mouth_detail import grey


@dataclass(frozen=True, slots=True)
class Truth:
    """Frames of the real film.

    Attributes:
        crops: uint8 [T, 256, 256, 3], face crops, RGB; 0 where the frame does not show the face.
        reasons: T texts: "" for a usable frame, otherwise the reason code.
        poses: float64 [T, 6], head-pose vectors; NaN where the frame does not show the face.
        native: the lower faces at the footage's own resolution.
    """

    crops: UInt8 = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    poses: Float64 = field(repr=False)
    native: NativeTruth = field(repr=False)


def truth_of(shot: Shot) -> Truth:
    """Return the frames of the real film, with the selected face."""
    total, rows = shot.info.video.num_frames, shot.rows
    crops = np.zeros((total, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    poses = np.full((total, POSE_SIZE), np.nan)
    scale = scale_of(shot.workspace.faces, rows[rows >= 0])
    native = NativeTruth(np.zeros((total, scale * BOX_SIZE, scale * BOX_SIZE), np.uint8), [None] * total)
    reasons: list[str] = []
    with VideoReader(shot.info) as reader:
        for frame in reader:
            row = int(rows[frame.index])
            if row < 0:
                reasons.append("TARGET_NOT_PRESENT")
                continue
            (record,) = shot.workspace.faces.read(row, row + 1)
            pose = pose_of(record)
            poses[frame.index] = pose_vectors([pose])[0]
            reason = reason_name(record["reason"])
            reasons.append("" if record["reason"] == DUBBED else reason)
            affine, rgb = crop_from_frame(pose), to_rgb(frame)
            luma = grey(rgb)
            native.luma[frame.index] = native_luma(luma, pose, scale)
            native.patches[frame.index] = footage_patch(luma, pose, scale)
            crop = cv2.warpAffine(
                rgb,
                affine,
                (CROP_SIZE, CROP_SIZE),
                flags=cv2.INTER_AREA if record["scale"] > 1 else cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
            x, y = BOX_ORIGIN
            crop[y : y + BOX_SIZE, x : x + BOX_SIZE] = record["pixels"]
            crops[frame.index] = crop
    return Truth(crops, tuple(reasons), poses, native)
