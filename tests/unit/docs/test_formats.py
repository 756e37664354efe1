"""docs/formats.md: every footage of the table goes through every ending, and comes back as the table says."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import MediaInfo
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import Clip, make_clip, rewritten

PAGE = Path("docs/formats.md")
SOURCES = {"ProRes": ("prores_ks", ".mov"), "JPEG": ("jpeg2000", ".mkv")}
"""Encoder and ending of the footage, by the first word of a row. Other footage is FFV1."""
WRITTEN = {"AV1": ("av1", ".mp4"), "DNxHR": ("dnxhr", ".mov")}
"""Codec and ending of footage that dubstage writes: FFmpeg's encoders need settings."""
LARGEST_CHANGE = 0.09
"""Largest change of a sample, share of the full scale: the drawn footage is noise, which no lossy codec likes."""


class Row(NamedTuple):
    """A row of the table: the footage in words, its pixel format, and the codec by ending."""

    words: str
    pixel_format: str
    codecs: dict[str, str]


def table() -> list[Row]:
    lines = PAGE.read_text().split("## Codec, by footage and ending")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    endings = [ending.strip("`") for ending in cells[0][1:]]
    rows = []
    for first, *codecs in cells[2:]:
        found = re.fullmatch(r"(.*) `(\w+)`", first)
        assert found is not None, first
        rows.append(Row(found[1], found[2], dict(zip(endings, codecs, strict=True))))
    return rows


def footage(row: Row, folder: Path) -> MediaInfo:
    kind = row.words.split()[0]
    codec, ending = SOURCES.get(kind, ("ffv1", ".mkv"))
    colour = (1, 1, 1, 1) if kind == "DNxHR" else None
    clip = Clip(pixel_format=row.pixel_format, size=(256, 144), codec=codec, colour=colour)
    made = probe(make_clip(folder / f"made{ending}", clip))
    if kind not in WRITTEN:
        return made
    codec, ending = WRITTEN[kind]
    rewritten(made.path, folder / f"written{ending}", codec)
    return probe(folder / f"written{ending}")


@pytest.mark.parametrize("row", table(), ids=[row.words for row in table()])
def test_footage_comes_back_as_the_table_says(row: Row, tmp_path: Path) -> None:
    info = footage(row, tmp_path)
    for ending, expected in row.codecs.items():
        output = tmp_path / f"out{ending}"
        if expected == "refused":
            with pytest.raises(MediaUnsupportedError, match=r"these do|these can"):
                rewritten(info.path, output)
            assert not output.exists()
            continue
        codec, _, note = expected.partition(", ")
        choice = rewritten(info.path, output)
        assert (choice.codec, note == "10 bits") == (codec, choice.pixel_format != info.video.pixel.name), ending
        check(info, probe(output), codec)


def decoded(codec: str, pixel_format: str) -> str:
    """Return the pixel format that decoders give: grey as 4:2:0 of full range, ProRes 4444 of 10 bits as 12 bits."""
    if pixel_format == "gray" and codec != "ffv1":
        return "yuvj420p"
    return pixel_format.replace("444p10", "444p12") if codec == "prores" else pixel_format


def check(before: MediaInfo, after: MediaInfo, codec: str) -> None:
    """Check size, times, pixel format, range and samples."""
    old, new = before.video, after.video
    assert (new.width, new.height, new.pixel.name) == (old.width, old.height, decoded(codec, old.pixel.name))
    times = [[Fraction(int(pts - video.pts[0])) * video.time_base for pts in video.pts] for video in (old, new)]
    assert times[0] == times[1]
    assert new.colour_model.full_range == old.colour_model.full_range
    tops = [(1 << video.pixel.bits) - 1 for video in (old, new)]
    with VideoReader(before) as first, VideoReader(after) as second:
        for a, b in zip(first, second, strict=True):
            planes = zip(a.planes, b.planes, strict=len(a.planes) == len(b.planes))
            assert max(np.abs(x / tops[0] - y / tops[1]).max() for x, y in planes) <= LARGEST_CHANGE
