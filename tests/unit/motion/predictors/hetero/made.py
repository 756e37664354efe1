"""A made-up training set with landmarks of whole faces, phone labels and speech without a face; tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from research.methods.hetero.motion import HeteroTrainingConfig
from research.methods.hetero.speech_data import HeteroBatchConfig
from research.motion.clips import TrainingClip
from research.training.training import LoopSettings
from research.training.trainset import MANIFEST, ClipRow, TrainSet, manifest_line, part_path
from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS, NUM_UPPER
from services.common.geometry.rotations import matrix_from_euler
from services.common.store.tensor_bytes import encode_arrays
from services.motion.predictors.hetero.network import HeteroConfig
from tests.unit.motion.made_clips import made_clip, row_of, write_arrays

TINY = HeteroTrainingConfig(
    network=HeteroConfig(channels=(4, 4, 4), embedding=8, decoder_channels=4),
    batches=HeteroBatchConfig(seen=2, heard=2, frames=6, reference_frames=3),
    loop=LoopSettings(steps=4, check_every=2),
)


STATES = replace(TINY, network=replace(TINY.network, heard="states"))


def upper_face(num_frames: int) -> np.ndarray:
    """Pose landmarks of a still face, float32 [T, 99, 3]."""
    return np.random.default_rng(4).normal(0.0, 40.0, (1, NUM_UPPER, 3)).repeat(num_frames, axis=0).astype(np.float32)


def landmarks_of(clip: TrainingClip) -> np.ndarray:
    """Landmarks of whole faces in frame pixels, float32 [T, 478, 3]: the mean head with the clip's mouths."""
    head = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
    frames = []
    for mouth, vector in zip(clip.mouth_landmarks, clip.poses, strict=True):
        face = head.copy()
        face[list(MOUTH_AREA)] = mouth
        pose = HeadPose(float(vector[5]), np.asarray(matrix_from_euler(vector[:3])), np.array([*vector[3:5], 0.0]))
        frames.append(to_frame(face, pose))
    return np.stack(frames)


def write_clip(folder: Path, clip: TrainingClip, *, face: bool = True, labels: bool = False) -> ClipRow:
    """Write the files of a clip below a training set's folder, and return its row."""
    row = row_of(clip)
    if not face:
        row = replace(row, has_face=False, has_pixels=True, usable_frames=0, face_px=0.0)
    if labels:
        row = replace(row, phones="aligned")
        known = np.full(4 * len(clip), 255, np.uint8)
        known[40:80] = 1
        part_path(folder, row.shard, row.name, "phones").write_bytes(encode_arrays({"labels": known}))
    write_arrays(folder, row, clip, landmarks_of(clip), face=face)
    return row


def heterogeneous_set(folder: Path) -> TrainSet:
    """Write three clips with a face, two of speech alone, and two held-out clips with a face."""
    (folder / "shards" / "00000").mkdir(parents=True)
    rows = [write_clip(folder, made_clip(index), labels=index == 0) for index in range(3)]
    rows += [write_clip(folder, made_clip(index, speaker="dora"), face=False, labels=index == 7) for index in (7, 8)]
    rows += [write_clip(folder, made_clip(index, "val", 60, "carl")) for index in (4, 5)]
    (folder / MANIFEST).write_text("".join(map(manifest_line, rows)), encoding="utf-8")
    return TrainSet(folder)
