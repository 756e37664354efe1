"""Shapes of the people of a training set, in head space, with bounded memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.face.crops import HeadPose
from services.common.face.neutral import neutral_shape
from services.face.train.albedo import CLIPS_A_SPEAKER, Track
from services.face.train.face_mesh_topology import NUM_VERTICES
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet

MESH_LICENCE: Final = "Mesh connectivity: MediaPipe face mesh, (c) The MediaPipe Authors, Apache-2.0."
MAX_YAW_DEGREES: Final = 30.0
MAX_FRAMES_A_SPEAKER: Final = 6000
MAX_FRAMES: Final = 50_000
"""Most frames of all speakers together that are held, 6 kB each."""
MAX_READ_FRAMES: Final = 40_000
"""About the most frames of one speaker that are read."""


@dataclass(frozen=True, slots=True)
class Person:
    """Shapes of one speaker in one split.

    Attributes:
        split: the split.
        speaker: name of the speaker.
        neutral: float64 [468, 3], head space.
        num_frames: number of frames that were read.
        shapes: float32 [T, 468, 3], head space: some of the frames, evenly spread.
        tracks: clips with pixels, evenly spread: film, frame numbers, head poses.
    """

    split: str
    speaker: str
    neutral: Float64
    num_frames: int
    shapes: Float32
    tracks: tuple[Track, ...]


def read_people(data: TrainSet, clips: Path) -> Iterator[Person]:
    """Yield each speaker of each split. Speakers without usable, not strongly turned frames are left out.

    Args:
        data: the training set.
        clips: folder of the films.

    Raises:
        InvalidRequest: a file of the training set is missing or damaged.
    """
    groups: dict[tuple[str, str], list[ClipRow]] = defaultdict(list)
    for row in data.rows:
        if row.has_face and row.usable_frames:
            groups[row.split, row.speaker].append(row)
    wanted = sum(min(MAX_FRAMES_A_SPEAKER, sum(row.usable_frames for row in rows)) for rows in groups.values())
    share = min(1.0, MAX_FRAMES / max(1, wanted))
    for (split, speaker), rows in sorted(groups.items()):
        some = _evenly(rows, max(1, MAX_READ_FRAMES * len(rows) // sum(row.usable_frames for row in rows)))
        with_pixels = {row.name for row in _evenly([row for row in some if row.has_pixels], CLIPS_A_SPEAKER)}
        found: list[Float32] = []
        tracks: list[Track] = []
        for row in some:
            shapes, frames, poses = read_shapes(data, row)
            if len(frames):
                found.append(shapes)
            if len(frames) and row.name in with_pixels:
                tracks.append((clips / row.file, frames + row.first_frame, poses))
        if found:
            every = np.concatenate(found)
            neutral = neutral_shape(every).astype(np.float64)
            step = max(1, int(len(every) / (share * min(MAX_FRAMES_A_SPEAKER, len(every)))))
            yield Person(split, speaker, neutral, len(every), every[::step].copy(), tuple(tracks))


def read_shapes(data: TrainSet, row: ClipRow) -> tuple[Float32, npt.NDArray[np.intp], tuple[HeadPose, ...]]:
    """Return the usable, not strongly turned frames of a clip.

    Returns:
        Shapes float32 [T, 468, 3] in head space, frame numbers [T], and T head poses.
    """
    arrays = data.arrays(row, "track", ("landmarks", "scale", "rotation", "translation", "usable"))
    scale, rotation, translation = arrays["scale"], arrays["rotation"], arrays["translation"]
    yaw = np.degrees(np.arctan2(-rotation[:, 0, 2], rotation[:, 2, 2]))
    kept = np.flatnonzero(arrays["usable"] & (np.abs(yaw) < MAX_YAW_DEGREES))
    points = arrays["landmarks"][kept, :NUM_VERTICES].astype(np.float64) - translation[kept, None]
    shapes = (points @ rotation[kept] / scale[kept, None, None]).astype(np.float32)
    return shapes, kept, tuple(HeadPose(float(scale[t]), rotation[t], translation[t]) for t in kept)


def _evenly(rows: Sequence[ClipRow], most: int) -> list[ClipRow]:
    """Return at most `most` rows, evenly spread."""
    if len(rows) <= most:
        return list(rows)
    return [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]


def licence_of(rows: Sequence[ClipRow]) -> str:
    """Return the model's statement on where it comes from: sources and licences of the clips, and of the mesh."""
    sources = sorted({f"{row.source} ({row.licence or 'licence unknown'})" for row in rows})
    return f"Learned in dubstage from {', '.join(sources)}. {MESH_LICENCE}"
