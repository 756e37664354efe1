"""Files that were made to do harm, and the process that looks into them."""

import asyncio
import contextlib
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.media import inspection
from gateway.media.inspection import inspect_in_child, inspect_sound, inspect_video
from gateway.media.probe import probe
from services.common.errors import MediaUnsupportedError
from tests.unit.media.made_footage import Clip, make_clip, make_sound, tone

CLIP = "clip.mp4"


def _black_picture(path: Path, side: int) -> Path:
    """A PNG file of a black square."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    deflate, row = zlib.compressobj(1), bytes(1 + 3 * side)
    body = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def _children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        # A thread may end between the list and the look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "children").read_text().split()
    return found


def test_expensive_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _black_picture(tmp_path / "large.png", 11_000)
    assert path.stat().st_size < 3_000_000
    monkeypatch.setattr(inspection, "PROBE_MEMORY_BYTES", 400 << 20)
    with pytest.raises(MediaUnsupportedError, match=r"large\.png .* takes more than 400 MiB of memory"):
        inspect_video(path)
    path = make_clip(tmp_path / CLIP)
    monkeypatch.setattr(inspection, "PROBE_BASE_S", -0.99)
    with pytest.raises(MediaUnsupportedError, match=r"clip\.mp4 .* takes more than \d+ s"):
        inspect_video(path)


def test_a_cancelled_wait_ends_the_process_that_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / CLIP)
    # It looks until it is ended, however late that is.
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(inspection, "sys", SimpleNamespace(executable=str(program), path=sys.path))
    # Servers that other tests started stay.
    before = set(_children())

    async def give_up(*, begun: bool) -> None:
        task = asyncio.create_task(inspect_in_child(path))
        await asyncio.sleep(0)
        while begun and set(_children()) <= before:  # noqa: ASYNC110 - a process begins
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    for begun in (False, True):
        asyncio.run(give_up(begun=begun))
        assert set(_children()) <= before


def test_what_the_process_finds_is_what_probe_finds(tmp_path: Path) -> None:
    clip = Clip(
        codec="libx264", rotation=90, sample_aspect=Fraction(16, 15), colour=(9, 2, 9, 16), sound_rate=44100, subtitles=True,
        timecode="01:02:03:04", comment="prise d'été", chapters=True,
    )  # fmt: skip
    path = make_clip(tmp_path / CLIP, clip)
    here, there = probe(path), inspect_video(path)
    np.testing.assert_array_equal(there.video.pts, here.video.pts)
    assert not there.video.pts.flags.writeable
    for name in ("path", "container", "audio", "others", "metadata"):
        assert getattr(there, name) == getattr(here, name)
    for name in here.video.__slots__:
        np.testing.assert_equal(getattr(there.video, name), getattr(here.video, name), name)


def test_large_cover_picture_before_sound(tmp_path: Path) -> None:
    """A podcast's cover picture is larger than what FFmpeg looks at to find the format by content."""
    sound = make_sound(tmp_path / "plain.mp3", tone(44100, 44100), 44100, "mp3").read_bytes()
    cover = b"APIC" + struct.pack(">I", 2_999_990) + bytes(2 + 2_999_990)
    size = len(cover)
    head = b"ID3\x03\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "podcast.mp3").write_bytes(head + cover + sound)
    assert inspect_sound(tmp_path / "podcast.mp3").sample_rate_hz == 44100


def test_probe_cached_until_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked into once until its content changes."""
    monkeypatch.setattr(inspection, "_SETTLED_S", 0.0)
    path = make_clip(tmp_path / "clip.mp4")
    started: list[str] = []
    start = inspection._Inspection._start

    def counted(self: Any, handle: int, seconds: float) -> Any:
        if self._path == path:  # servers of other tests may look into videos of their own meanwhile
            started.append(self._question)
        return start(self, handle, seconds)

    monkeypatch.setattr(inspection._Inspection, "_start", counted)
    assert inspect_video(path).video.num_frames == inspect_video(path).video.num_frames
    assert started == ["video"]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaUnsupportedError):
        inspect_video(path)
    assert started == ["video", "video"]
