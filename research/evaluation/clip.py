"""The clips of an evaluation: the films, their face crops, head poses, sound, and lower faces at the footage's own resolution.

Clips are films by name, or films of a catalogue by their use.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import soxr

from gateway.dub.analysis import FootageAnalysis
from gateway.dub.messages import reason_name
from gateway.dub.native_boxes import native_luma, scale_of
from gateway.dub.plan import DUBBED
from gateway.dub.records import pose_of
from gateway.media.inspection import inspect_video
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from research.evaluation.native import NativeTruth, footage_patch
from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import InvalidRequest, MediaUnsupported
from services.common.face.crops import BOX_ORIGIN, BOX_SIZE, CROP_SIZE, POSE_SIZE, crop_from_frame, pose_vectors
from services.common.face.mouth_detail import grey

SPEECH_RATE_HZ: Final = 16000
LAG_FRAME_SAMPLES: Final = SPEECH_RATE_HZ // 25
SILENCE_S: Final = 1.2
"""Seconds of silence before and after framed speech: longer than the mouth needs to come to rest."""


def check_clip(path: Path) -> MediaInfo:
    """Return the description of a clip, which has to be a film with sound.

    Raises:
        InvalidRequest: the clip has no sound.
        MediaUnsupported: the clip cannot be read as a film.
    """
    info = inspect_video(path)
    if not info.audio:
        raise InvalidRequest(f"{path} has no sound, and self-re-enactment needs the sound of the clip", field="clip")
    return info


def own_speech(info: MediaInfo) -> Float32:
    """Return the sound of a clip, float32 [N], 16 kHz mono, as long as the film."""
    reader = SoundReader(info.path, origin=info.video.start)
    samples = np.concatenate([chunk.samples for chunk in reader]).mean(axis=1)
    mono = soxr.resample(samples, reader.info.sample_rate_hz, SPEECH_RATE_HZ)
    length = int(info.video.duration * SPEECH_RATE_HZ)
    fitted = np.zeros(length, np.float32)
    fitted[: min(length, len(mono))] = mono[:length]
    return fitted


def shifted(samples: Float32, lag_frames: float) -> Float32:
    """Return speech of the same length, moved earlier by a lag (frames of 40 ms), so that sound and picture of the clip agree."""
    moved = np.zeros_like(samples)
    offset = round(lag_frames * LAG_FRAME_SAMPLES)
    if offset >= 0:
        moved[: len(samples) - offset] = samples[offset:]
    else:
        moved[-offset:] = samples[:offset]
    return moved


def framed_speech(samples: Float32) -> Float32:
    """Return speech with SILENCE_S of digital silence before and after it."""
    return np.pad(samples, round(SILENCE_S * SPEECH_RATE_HZ))


CATALOGUE: Final = "catalogue.csv"


def chosen_clips(paths: Sequence[Path], splits: Collection[str]) -> list[Path]:
    """Return the clips that paths name, in their order; without splits, the paths themselves.

    Args:
        paths: films, and folders with a catalogue.csv (columns `file` and `use`).
        splits: uses of the catalogue. A folder stands for its films with one of these uses that have sound.

    Raises:
        InvalidRequest: a folder has no readable catalogue, or a split has no film.
    """
    if not splits:
        return list(paths)
    clips: list[Path] = []
    for path in paths:
        clips.extend(_of_catalogue(path, splits) if path.is_dir() else [path])
    return clips


def _of_catalogue(folder: Path, splits: Collection[str]) -> list[Path]:
    try:
        with (folder / CATALOGUE).open(newline="", encoding="utf-8-sig") as stream:
            rows = [(row["file"], row["use"]) for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as problem:
        raise InvalidRequest(
            f"{folder}: --splits needs a table {CATALOGUE} with the columns file and use: {problem}", field="splits"
        ) from problem
    found = [(folder / file, use) for file, use in rows if use in splits and _is_talk(folder / file)]
    missing = [split for split in splits if split not in {use for _, use in found}]
    if missing:
        raise InvalidRequest(f"{folder / CATALOGUE} has no film with sound of use {', '.join(missing)}", field="splits")
    return [path for path, _ in found]


def _is_talk(path: Path) -> bool:
    """Return whether a file is a film with sound.

    Raises:
        InvalidRequest: the file is missing.
    """
    if not path.is_file():
        raise InvalidRequest(f"{path} is in the catalogue, but there is no such file", field="splits")
    try:
        return check_clip(path).video.num_frames > 1
    except (InvalidRequest, MediaUnsupported):
        return False


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


def truth_of(shot: FootageAnalysis) -> Truth:
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
