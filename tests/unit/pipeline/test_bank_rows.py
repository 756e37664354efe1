"""Which frames a texture bank is made from, by the length of the footage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.pipeline.bank_rows import MOST_FRAMES, STRETCH_FRAMES, BankRows, bank_rows
from gateway.pipeline.records import FACE_RECORD, RecordFile


def chosen(folder: Path, count: int, rate: float) -> BankRows:
    """The frames for a bank of a mouth that opens and shuts, all of whose frames are usable."""
    records = np.zeros(count, FACE_RECORD)
    records["frame"] = np.arange(count)
    records["scale"], records["rotation"] = 1.0, np.eye(3)
    records["mouth"][:, :, 1] = np.sin(0.7 * np.arange(count))[:, None] * np.arange(59)
    records["mouth"][count // 3, :, 1] += 20.0
    with RecordFile(folder / "faces.bin", FACE_RECORD) as faces:
        faces.append(records)
        return bank_rows(faces, list(range(count)), np.arange(count) / rate)


@pytest.mark.parametrize(("count", "rate"), [(25, 25.0), (250, 25.0), (600, 60.0)])
def test_ten_seconds_are_the_stage_s_own_choice(tmp_path: Path, count: int, rate: float) -> None:
    assert chosen(tmp_path, count, rate) == BankRows(list(range(count)), 0)


def test_a_bank_grows_with_the_footage(tmp_path: Path) -> None:
    half = chosen(tmp_path, 750, 25.0)
    assert half == BankRows(list(range(750)), MOST_FRAMES)


def test_of_longer_footage_stretches_with_the_most_different_mouths_are_taken(tmp_path: Path) -> None:
    long = chosen(tmp_path, 1200, 25.0)
    assert MOST_FRAMES - STRETCH_FRAMES <= len(long.rows) <= MOST_FRAMES
    assert 400 in long.rows
    runs = np.split(np.array(long.rows), np.flatnonzero(np.diff(long.rows) > 1) + 1)
    assert min(len(run) for run in runs) >= STRETCH_FRAMES
