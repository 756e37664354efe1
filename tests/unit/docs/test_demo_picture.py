"""The moving picture of the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.generate.demo_picture import PORTRAIT_SIDE, RATE, main, sheets, write

CHECKOUT = Path(__file__).resolve().parents[3]
PICTURE = "docs/images/demo.webp"
MAX_BYTES = 450_000


def test_the_readme_shows_the_moving_picture() -> None:
    assert f"({PICTURE})" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert (CHECKOUT / PICTURE).stat().st_size <= MAX_BYTES
    with Image.open(CHECKOUT / PICTURE) as picture:
        assert (picture.format, getattr(picture, "n_frames", 1), picture.info["loop"]) == ("WEBP", 3 * RATE, 0)


def test_the_shortest_video_ends_it(tmp_path: Path) -> None:
    """Three videos become one picture that repeats, with the portrait larger than the clip and the same bytes each time."""
    clip = [np.full((144, 176, 3), level, np.uint8) for level in (40, 90, 140)]
    portrait = [np.full((512, 512, 3), level, np.uint8) for level in (200, 150)]
    pictures = sheets(clip, clip, portrait)
    assert [picture.shape for picture in pictures] == [(PORTRAIT_SIDE, PORTRAIT_SIDE * 3 // 2, 3)] * 2
    assert [int(picture[0, -1, 0]) for picture in pictures] == [200, 150]
    for name in ("first.webp", "second.webp"):
        write(pictures, tmp_path / name)
    assert (tmp_path / "first.webp").read_bytes() == (tmp_path / "second.webp").read_bytes()


def test_missing_videos_name_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--demo", str(tmp_path), "--output", str(tmp_path / "x.webp")]) == 10
    assert "run `make demo`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
