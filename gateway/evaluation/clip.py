"""The real film of an evaluation: its face crops, its head poses, and its sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import soxr

from gateway.compositing.jaw import moved
from gateway.evaluation.native import NativeTruth
from gateway.media.inspection import inspect_film
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.pipeline.messages import reason_name
from gateway.pipeline.native_boxes import grey, native_luma, scale_of
from gateway.pipeline.plan import DUBBED
from gateway.pipeline.records import pose_of
from gateway.pipeline.shot import Shot
from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import InvalidRequest
from services.common.face.crops import BOX_ORIGIN, BOX_SIZE, CROP_SIZE, crop_from_frame
from services.common.face.head_pose_vectors import POSE_SIZE, pose_vectors

SPEECH_RATE_HZ: Final = 16000
LAG_FRAME_SAMPLES: Final = SPEECH_RATE_HZ // 25


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


def check_clip(path: Path) -> MediaInfo:
    """Return the description of a clip, which has to be a film with sound.

    Raises:
        InvalidRequest: the clip has no sound.
        MediaUnsupported: the clip cannot be read as a film.
    """
    info = inspect_film(path)
    if not info.audio:
        raise InvalidRequest(f"{path} has no sound, and self-re-enactment needs the sound of the clip", field="clip")
    return info


def truth_of(shot: Shot) -> Truth:
    """Return the frames of the real film, with the selected face."""
    total, rows = shot.info.video.num_frames, shot.rows
    crops = np.zeros((total, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    poses = np.full((total, POSE_SIZE), np.nan)
    scale = scale_of(shot.workspace.faces, rows[rows >= 0].tolist())
    native = NativeTruth(np.zeros((total, scale * BOX_SIZE, scale * BOX_SIZE), np.uint8), np.full(total, np.nan))
    reasons: list[str] = []
    with VideoReader(shot.info) as reader:
        for frame in reader:
            row = int(rows[frame.index])
            if row < 0:
                reasons.append("TARGET_NOT_PRESENT")
                continue
            (record,) = shot.workspace.faces.read(row, row + 1)
            poses[frame.index] = pose_vectors([pose_of(record)])[0]
            reason = reason_name(record["reason"])
            reasons.append("" if record["reason"] == DUBBED else reason)
            affine, rgb = crop_from_frame(pose_of(record)), to_rgb(frame)
            native.luma[frame.index] = native_luma(grey(rgb), pose_of(record), scale)
            native.footage_scale[frame.index] = record["scale"]
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


def own_speech(info: MediaInfo) -> Float32:
    """Return the sound of a clip, float32 [N], 16 kHz mono, as long as the film."""
    reader = SoundReader(info.path, origin=info.video.start)
    samples = np.concatenate([chunk.samples for chunk in reader]).mean(axis=1)
    mono = soxr.resample(samples, reader.info.sample_rate_hz, SPEECH_RATE_HZ)
    length = int(info.video.duration * SPEECH_RATE_HZ)
    fitted = np.zeros(length, np.float32)
    fitted[: min(length, len(mono))] = mono[:length]
    return fitted


def shifted(samples: Float32, lag_frames: int) -> Float32:
    """Return speech of the same length, moved earlier by a lag (frames of 40 ms), so that sound and picture of the clip agree."""
    moved = np.zeros_like(samples)
    offset = lag_frames * LAG_FRAME_SAMPLES
    if offset >= 0:
        moved[: len(samples) - offset] = samples[offset:]
    else:
        moved[-offset:] = samples[:offset]
    return moved


def insert_box(crop: UInt8, box: UInt8, mask: UInt8, shift: Float32) -> UInt8:
    """Return a face crop with a finished render box in it, blended as compositing blends the box into the planes of a film.

    Args:
        crop: uint8 [256, 256, 3], RGB.
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        shift: float32 [160, 160, 2], how the crop is moved under and around the box, box pixels (jaw_shift).
    """
    result = crop.copy()
    x, y = BOX_ORIGIN
    region = result[y : y + BOX_SIZE, x : x + BOX_SIZE]
    weight = mask[..., None].astype(np.float32) / 255.0
    region[...] = np.rint(moved(region, shift) * (1.0 - weight) + box * weight).astype(np.uint8)
    return result
