"""The measurement of the watermark: re-encodings, tables and plots, and what is counted in footage without a mark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.provenance.watermark.detection import ContentSearch, ResponseSpan
from gateway.provenance.watermark.pattern import PIXELS, public_content, public_spreading
from gateway.provenance.watermark.payload import watermark_key
from research.bench.watermark.__main__ import markdown_of_dubs, plot_dubs, plot_undubbed, sum_of_dubs
from research.bench.watermark.cost import blend_time
from research.bench.watermark.dubs import AS_WRITTEN, RECODINGS, RecodingRow, append_row, read_rows, recoded
from research.bench.watermark.genuine import Copy, readings_of, sum_of_copies, videos_below, write_copies, write_readings
from research.bench.watermark.windows import VARIANTS, KeptFace, readings_of_windows, window_totals
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


def test_rows_survive_the_table(tmp_path: Path) -> None:
    table = tmp_path / "dubs.csv"
    assert read_rows(table) == []
    for row in (ROW, LOST):
        append_row(table, row)
    assert read_rows(table) == [ROW, LOST]


def test_the_table_names_what_was_not_read(tmp_path: Path) -> None:
    assert "| 64, 3.10 | **not read** (40, 0.90) |" in markdown_of_dubs([ROW, LOST])
    good, bad = sum_of_dubs([ROW, LOST])
    assert good == "as written: 100.00 % of the bits of 1 dubs right, 1 read, 1 confirmed"
    assert "62.50 %" in bad
    assert bad.endswith("wrong bits: clip ugc 40/64; not read: clip ugc")
    plot_dubs([ROW, LOST], tmp_path / "dubs.png")
    assert (tmp_path / "dubs.png").stat().st_size > 1000


def test_copies_counted_by_person(tmp_path: Path) -> None:
    """Copies to other people and to the same person are counted apart."""
    copies = [Copy("a", "b", -0.4, False, 0), Copy("b", "a", -7.2, True, 60), Copy("a", "a", -31.0, True, 64)]
    others, same = sum_of_copies(copies)
    assert others == "copied to footage of another person: 1 of 2 marks found, least probability 10^-7.2: b to a 10^-7.2"
    assert same == "copied to the dub's own footage: 1 of 1 marks found, least probability 10^-31.0"
    write_copies(tmp_path / "copies.csv", copies)
    assert (tmp_path / "copies.csv").read_text().splitlines()[2] == "b,a,-7.2,True,60"


@pytest.mark.long
def test_noise_false_alarm_rate(tmp_path: Path) -> None:
    """Noise has no false alarm and keeps the stated probability."""
    random = np.random.default_rng(0)
    videos = [
        [[ResponseSpan(0, random.normal(size=(100, 96)), random.integers(0, 256, (100, PIXELS)).astype(np.uint8))]]
        for _ in range(5)
    ]
    readings = readings_of([*videos, [], [[]]], watermark_key(b"own"), 4)
    assert (readings.num_videos, readings.seconds, readings.false_alarms) == (5, 20.0, 0)
    assert readings.wrong.shape == (4, 5)
    assert (readings.wrong < -3.0).sum() == 0
    write_readings(tmp_path / "undubbed.csv", readings)
    assert (tmp_path / "undubbed.csv").read_text().splitlines()[1] == "0.0,5,5,20,20"
    plot_undubbed(readings, tmp_path / "undubbed.png")
    assert (tmp_path / "undubbed.png").stat().st_size > 1000


def test_windows_are_read_as_the_search_reads_them() -> None:
    """A window of a span has the sum of squared bits that the search finds in the window alone."""
    random = np.random.default_rng(3)
    # Equal pictures, because the search weighs the pictures of a span by their own deviation.
    pictures = np.repeat(random.integers(0, 256, (1, PIXELS)).astype(np.uint8), 40, axis=0)
    span = ResponseSpan(7, random.normal(size=(40, 96)), pictures)
    totals = window_totals(span, 30)
    search = ContentSearch(public_spreading(), public_content())
    expected = [
        search.best_shift([ResponseSpan(7 + begin, span.responses[begin : begin + 30], pictures[:30])]).total for begin in range(11)
    ]
    assert totals == pytest.approx(expected)
    assert window_totals(span, 41).size == 0


def test_windows_of_noise_have_no_false_alarm() -> None:
    random = np.random.default_rng(4)
    boxes = np.clip(128 + random.normal(0.0, 20.0, (60, 80, 80)), 0, 255).astype(np.uint8)
    readings = readings_of_windows([KeptFace(np.arange(60) / 25.0, boxes, ())], 2.0)
    assert (readings.chances.size, readings.independent.size) == (len(VARIANTS) * 11, 4)
    assert readings.chances.min() > -4.0


def test_videos_found_below_folders(tmp_path: Path) -> None:
    """Videos are found below folders and taken as they are named."""
    (tmp_path / "more").mkdir()
    for name in ("a.MOV", "notes.txt", "more/b.mp4"):
        (tmp_path / name).touch()
    assert [file.name for file in videos_below([tmp_path, tmp_path / "notes.txt"])] == ["a.MOV", "b.mp4", "notes.txt"]


def test_blending_is_timed_with_and_without() -> None:
    row = blend_time(160, runs=2)
    assert row.without_ms > 0.0
    assert row.with_ms > 0.0
