"""The measurement of the watermark: re-encodings, tables, and windows of footage without a mark."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from research.bench.watermark import (
    AS_WRITTEN,
    RECODINGS,
    VARIANTS,
    KeptFace,
    RecodingRow,
    chances_of_windows,
    recoded,
    rows_of_recodings,
    write_rows,
)
from tests.unit.provenance.conftest import carphone

__all__ = ["carphone"]

ROW = RecodingRow("clip", "ugc", 200, 6.0, AS_WRITTEN, 64, 3.1, -90.5, True, -12.0)
LOST = replace(ROW, recoding="H.264 crf 28", bits_right=40, mean_bit=0.9, log10_false_alarm=-0.3, read=False, log10_forged=-0.2)


@pytest.mark.parametrize("name", list(RECODINGS))
def test_recoding_keeps_video(carphone: Path, tmp_path: Path, name: str) -> None:
    """A recoding keeps the video and changes what it says."""
    how = RECODINGS[name]
    again = recoded(carphone, tmp_path / f"again.{how.ending}", how)
    with av.open(str(carphone)) as before, av.open(str(again)) as after:
        old, new = before.streams.video[0], after.streams.video[0]
        pictures = list(after.decode(new))
        part = {"half scale": 0.5, "half scale, crf 28": 0.5, "10 % crop": 0.9}.get(name, 1.0)
        assert new.width == pytest.approx(part * old.width, abs=2)
        assert new.height == pytest.approx(part * old.height, abs=2)
        assert len(pictures) == 12
        assert new.codec_context.name == ("vp9" if how.ending == "webm" else "h264")
        assert pictures[-1].time == pytest.approx(11 / float(new.average_rate or 0), abs=0.02)


def test_tables_count_unread_marks(tmp_path: Path) -> None:
    good, bad = rows_of_recodings([ROW, LOST])
    assert good == {"recoding": AS_WRITTEN, "dubs": 1, "bits right": 1.0, "read": 1, "confirmed": 1}
    assert (bad["bits right"], bad["read"], bad["confirmed"]) == (0.625, 0, 0)
    write_rows(tmp_path / "dubs.csv", [ROW, LOST])
    with (tmp_path / "dubs.csv").open(newline="") as table:
        assert [row["bits_right"] for row in csv.DictReader(table)] == ["64", "40"]


def test_windows_of_noise_have_no_false_alarm() -> None:
    random = np.random.default_rng(4)
    boxes = np.clip(128 + random.normal(0.0, 20.0, (60, 80, 80)), 0, 255).astype(np.uint8)
    chances = chances_of_windows([KeptFace(np.arange(60) / 25.0, boxes, ())], 1.0)
    assert chances.size == 2 * len(VARIANTS)
    assert chances.min() > -4.0
