"""Made-up training clips, in memory and in a training set on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from research.motion.clips import Clips, TrainingClip, array_bytes
from research.training.trainset import MANIFEST, BoundedCache, ClipRow, TrainSet, manifest_line, part_path
from services.common.array_types import Float32
from services.common.geometry.rotations import matrix_from_euler
from services.common.store.tensor_bytes import encode_arrays
from services.motion.features import content_rows, sync_rows
from tests.unit.motion.synthesised import head_poses, mouths, random_features, with_identity_removed, with_states

SPEAKERS = ("anna", "anna", "ben")


def made_clip(index: int, split: str = "train", num_frames: int = 90, speaker: str = "") -> TrainingClip:
    """A clip whose mouth opens with the probability of 'AA', two frames wide."""
    features = with_identity_removed(random_features(num_frames, seed=index), seed=index + 100)
    features = with_states(features, "speech_states", "speech_states_live", seed=index + 200)
    drive = np.convolve(features.posteriorgram[..., 1].mean(axis=1), [0.5, 0.5], mode="same")
    return TrainingClip(
        f"clip{index}",
        split,
        speaker or SPEAKERS[index % 3],
        mouths((40.0 * drive).astype(np.float32)),
        np.ones(num_frames, np.bool_),
        features,
        content_rows(features),
        sync_rows(features),
        head_poses(num_frames, index),
    )


def row_of(clip: TrainingClip, lag_frames: int = 0) -> ClipRow:
    return ClipRow(
        name=clip.name,
        shard="00000",
        file=f"{clip.name}.mp4",
        sha256="0" * 64,
        source="made",
        speaker=clip.speaker,
        split=clip.split,
        licence="CC0",
        has_face=True,
        frames=len(clip),
        usable_frames=int(clip.usable.sum()),
        face_px=200.0,
        seconds=len(clip) / 25,
        lag_frames=lag_frames,
    )


def in_memory(clips: Sequence[TrainingClip]) -> Clips:
    rows = {row_of(clip): clip for clip in clips}
    return Clips(rows, BoundedCache(rows.__getitem__, array_bytes))


def write_arrays(folder: Path, row: ClipRow, clip: TrainingClip, landmarks: Float32 | None = None, *, face: bool = True) -> None:
    """Write what motion reads of a clip, with landmarks of whole faces if they are given."""
    if face:
        track = {
            **({} if landmarks is None else {"landmarks": landmarks}),
            "mouth_landmarks": clip.mouth_landmarks,
            "usable": clip.usable,
            "rotation": np.asarray(matrix_from_euler(clip.poses[:, :3])),
            "translation": np.concatenate([clip.poses[:, 3:5], np.zeros((len(clip), 1))], axis=1),
            "scale": clip.poses[:, 5],
        }
        part_path(folder, row.shard, row.name, "track").write_bytes(encode_arrays(track))
    names = ("posteriorgram", "mel", "speech_probability")
    speech = {**{name: getattr(clip.features, name) for name in names}, **clip.features.extra}
    part_path(folder, row.shard, row.name, "speech").write_bytes(encode_arrays(speech))


def write_set(folder: Path, clips: Sequence[TrainingClip], lags: Mapping[str, int] | None = None) -> TrainSet:
    """Write a training set with what motion reads of it."""
    rows = [row_of(clip, (lags or {}).get(clip.name, 0)) for clip in clips]
    (folder / "shards" / "00000").mkdir(parents=True)
    for row, clip in zip(rows, clips, strict=True):
        write_arrays(folder, row, clip)
    (folder / MANIFEST).write_text("".join(map(manifest_line, rows)), encoding="utf-8")
    return TrainSet(folder)


def small_set(folder: Path) -> TrainSet:
    """Write a small training set: four clips of two speakers, two clips of a held-out speaker."""
    train = [made_clip(index) for index in range(4)]
    held_out = [made_clip(index, "val", 60, "carl") for index in (4, 5)]
    return write_set(folder, [*train, *held_out])
