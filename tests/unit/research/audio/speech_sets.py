"""Small training sets of made-up speech: each phone is a chord, each speaker shifts all chords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from research.training.trainset import MANIFEST, ClipRow, Part, manifest_line, part_path
from services.common.array_types import Array
from services.common.store.tensor_bytes import encode_arrays

ROWS_A_PHONE = 8


def write_part(folder: Path, row: ClipRow, part: Part, arrays: Mapping[str, Array], **metadata: str) -> None:
    path = part_path(folder, row.shard, row.name, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_arrays(arrays, metadata))


def write_rows(folder: Path, rows: Iterable[ClipRow]) -> None:
    (folder / MANIFEST).write_text("".join(map(manifest_line, rows)), encoding="utf-8")


def chords(labels: npt.NDArray[np.uint8], pitch: float, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return a sound of one chord a phone class, silence for class 0, 160 samples a row."""
    time_s = np.arange(160 * len(labels)) / 16_000
    classes = labels.repeat(160).astype(np.float64)
    sound = np.sin(2 * np.pi * pitch * (200 + 60 * classes) * time_s) + 0.5 * np.sin(
        2 * np.pi * pitch * (3000 - 50 * classes) * time_s
    )
    sound = 0.2 * sound * (classes > 0) + 0.001 * rng.standard_normal(len(time_s))
    return np.round(32767 * sound).astype(np.int16)


def speech_set(folder: Path, speakers: int = 4, clips: int = 3, seconds: float = 3.0) -> list[ClipRow]:
    """Write a set of labelled clips, and return its rows. The clips of the last speaker are held out."""
    rng = np.random.default_rng(7)
    rows = []
    for speaker in range(speakers):
        for clip in range(clips):
            classes = rng.integers(0, 6, int(seconds * 100) // ROWS_A_PHONE + 1)
            labels = classes.repeat(ROWS_A_PHONE)[: int(seconds * 100)].astype(np.uint8)
            row = ClipRow(
                name=f"s{speaker}__{clip}",
                shard="00000",
                file=f"s{speaker}/{clip}.wav",
                sha256=f"{speaker}{clip}",
                source="readers" if speaker % 2 else "singers",
                speaker=f"s{speaker}",
                split="val" if speaker == speakers - 1 else "train",
                licence="CC0",
                frames=int(seconds * 25),
                seconds=seconds,
                phones="aligned",
            )
            write_part(folder, row, "sound", {"samples": chords(labels, 1.0 + 0.1 * speaker, rng)})
            write_part(folder, row, "phones", {"labels": labels, "heard": labels}, origin="aligned")
            rows.append(row)
    write_rows(folder, rows)
    return rows
