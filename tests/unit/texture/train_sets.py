"""Training sets of a drawn person, made in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from research.training.trainset import MANIFEST, ClipRow, TrainSet, manifest_line, part_path
from services.common.store.tensor_bytes import encode_arrays

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


def drawn_set(folder: Path, person: DrawnPerson, clips: Mapping[str, tuple[str, str, int]], **facts: object) -> TrainSet:
    """Write a training set and return it.

    Args:
        person: who is drawn. Every clip shows other frames.
        clips: speaker, split and number of frames by name of the clip.
        facts: further fields of every row.
    """
    lines = []
    for number, (name, (speaker, split, count)) in enumerate(clips.items()):
        frames = [person.bank_frame(1000 * number + step) for step in range(count)]
        arrays = {
            "landmarks": np.stack([frame.landmarks for frame in frames]),
            "scale": np.array([frame.pose.scale for frame in frames]),
            "rotation": np.stack([frame.pose.rotation for frame in frames]),
            "translation": np.stack([frame.pose.translation for frame in frames]),
            "mouth_landmarks": np.stack([person.mouth(frame.frame_index) for frame in frames]),
            "usable": np.arange(count) % 45 != 40,
        }
        path = part_path(folder, "00000", name, "track")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_arrays(arrays))
        row: dict[str, object] = {
            "name": name, "shard": "00000", "file": f"{name}.mp4", "sha256": "", "source": "drawn", "speaker": speaker,
            "split": split, "has_face": True, "frames": count, "usable_frames": int(arrays["usable"].sum()),
            "seconds": count / 25, **facts,
        }  # fmt: skip
        lines.append(manifest_line(ClipRow(**row)))  # type: ignore[arg-type]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")
    return TrainSet(folder)
