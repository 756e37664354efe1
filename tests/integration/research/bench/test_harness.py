"""Commands that are measured, and footage that is made for them."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from research.bench.runs import CommandFailedError, make_footage, measure, read_sound

HOLD = "x = bytearray(80 << 20); import time; time.sleep(1.0)"
"""Holds 80 MiB for twenty samples of its memory."""


def test_commands_are_measured(tmp_path: Path) -> None:
    """Peak memory counts children, processor time is that of the command alone, and a failing command shows its output's end."""
    alone = measure([sys.executable, "-c", HOLD], tmp_path / "log")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    with_child = measure([sys.executable, "-c", parent], tmp_path / "log")
    assert alone.peak_memory_mib > 80
    assert with_child.peak_memory_mib > alone.peak_memory_mib + 3
    assert alone.wall_s > 1.0
    busy = measure([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], tmp_path / "log")
    idle = measure([sys.executable, "-c", "pass"], tmp_path / "log")
    assert busy.cpu_s > idle.cpu_s > 0.0
    with pytest.raises(CommandFailedError, match="code 3"):
        measure([sys.executable, "-c", "print('bad luck'); raise SystemExit(3)"], tmp_path / "log")
    assert "bad luck" in (tmp_path / "log").read_text()


def test_footage_is_looped_to_720p(carphone: Path, tmp_path: Path) -> None:
    """Footage is looped to 720p with sound, and footage without any sound is refused."""
    speech = Path(__file__).parents[4] / "gateway" / "cli" / "demo_speech.flac"
    frames = make_footage(carphone, speech, 0.5, tmp_path / "video.mp4")
    with av.open(str(tmp_path / "video.mp4")) as container:
        decoded = list(container.decode(video=0))
    assert len(decoded) == frames == 14
    assert (decoded[0].width, decoded[0].height) == (1280, 720)
    assert len(read_sound(tmp_path / "video.mp4")) == pytest.approx(24_000, abs=2048)
    with pytest.raises(ValueError, match="no sound"):
        make_footage(carphone, None, 0.5, tmp_path / "video.mp4")


def test_longer_footage_repeats_clip(carphone: Path, tmp_path: Path) -> None:
    speech = Path(__file__).parents[4] / "gateway" / "cli" / "demo_speech.flac"
    with av.open(str(carphone)) as container:
        of_clip, rate = sum(1 for _ in container.decode(video=0)), container.streams.video[0].average_rate
    assert rate is not None
    seconds = float((of_clip + 10) / rate)
    frames = make_footage(carphone, speech, seconds, tmp_path / "video.mp4", height=90)
    with av.open(str(tmp_path / "video.mp4")) as container:
        decoded = [(frame.pts, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    assert len(decoded) == frames
    assert decoded[0][1].shape == (90, 160)
    assert len({pts for pts, _ in decoded}) == frames
    for place in (0, 1, frames - of_clip - 1):
        np.testing.assert_array_equal(decoded[of_clip + place][1], decoded[place][1])
    assert not np.array_equal(decoded[of_clip - 1][1], decoded[0][1])
