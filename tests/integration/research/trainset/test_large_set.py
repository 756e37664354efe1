"""A training set of 200 hours is read with little memory."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from research.training.trainset import (
    CLIPS_A_SHARD,
    BoundedCache,
    ClipRow,
    TrainSet,
    part_path,
    shard_name,
    speaker_hours,
    write_manifest,
)
from services.common.store.tensor_bytes import encode_arrays

HOURS = 200
CLIP_S = 30
CLIPS = HOURS * 3600 // CLIP_S
READ = 600
"""Clips that are read."""
SAMPLES = 2000
CACHE_BYTES = 100_000
MIB = 1 << 20


def row(number: int) -> ClipRow:
    return ClipRow(
        name=f"speaker{number % 300}__{number:06d}.flac",
        shard=shard_name(number),
        file=f"speaker{number % 300}/{number:06d}.flac",
        sha256=f"{number:064x}",
        source="books",
        speaker=f"books-speaker{number % 300}",
        split="train" if number % 300 else "val",
        licence="CC BY 4.0 (a corpus of read books, by their authors, as cited in the README of the corpus)",
        transcript=f"sentence {number} of a book that somebody reads aloud in a quiet room to nobody in particular",
        frames=25 * CLIP_S,
        seconds=float(CLIP_S),
    )


def write_set(folder: Path) -> None:
    """Write the manifest of all clips, and the sound of the clips that are read, as links to one file."""
    folder.mkdir()
    write_manifest(folder, map(row, range(CLIPS)))
    sound = folder / "sound"
    sound.write_bytes(encode_arrays({"samples": np.arange(SAMPLES, dtype=np.int16)}))
    for number in range(0, READ, CLIPS_A_SHARD):
        (folder / "shards" / shard_name(number)).mkdir(parents=True)
    for number in range(READ):
        each = row(number)
        os.link(sound, part_path(folder, each.shard, each.name, "sound"))


def test_200_hours_are_read_with_bounded_memory(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    tracemalloc.start()
    try:
        data = TrainSet(tmp_path / "set")
        rows_bytes, _ = tracemalloc.get_traced_memory()
        cache: BoundedCache[int, np.ndarray] = BoundedCache(
            lambda number: data.arrays(data.rows[number], "sound", ("samples",))["samples"],
            lambda samples: samples.nbytes,
            CACHE_BYTES,
        )
        tracemalloc.reset_peak()
        total = sum(len(cache[number]) for number in range(READ))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == READ * SAMPLES
    assert len(data.rows) == CLIPS
    assert sum(speaker_hours(data.rows).values()) == pytest.approx(HOURS, abs=0.1)
    assert rows_bytes < CLIPS * 2048  # two kilobytes a row
    assert peak - rows_bytes < CACHE_BYTES + MIB // 2
