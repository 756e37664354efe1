"""A disk that is full while a video is written: a clear error, and nothing left of the video."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from services.common.errors import StorageFullError
from tests.refusals import raised
from tests.unit.media.made_footage import Clip, make_clip


def _write(info: MediaInfo, output: Path) -> None:
    """Write a lossless video."""
    with VideoWriter(output, info, speech=None, settings=WriteSettings(codec="ffv1")) as writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)


@contextmanager
def _small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of its own with little room; skips where it may not be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("room_kib", [16, 600])
def test_full_disk_leaves_no_file(tmp_path: Path, room_kib: int) -> None:
    noisy = Clip(codec="libx264", size=(320, 240), pts=tuple(range(0, 40 * 512, 512)))
    info = probe(make_clip(tmp_path / "clip.mp4", noisy))
    with _small_disk(tmp_path / "small", room_kib) as folder:
        with raised(StorageFullError, match=r"no space left to write .*out\.mp4", subject=str(folder)):
            _write(info, folder / "out.mp4")
        assert _names(folder) == []
