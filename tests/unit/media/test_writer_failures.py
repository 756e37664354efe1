"""Whatever goes wrong while a film is written: a clear error, and nothing left of the film."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.sound import Speech
from gateway.media.types import MediaInfo
from gateway.media.write_settings import WriteSettings
from gateway.media.writer import VideoWriter
from services.common.errors import InvalidRequest, MediaUnsupported
from tests.unit.media.made_footage import make_clip, tone


def _write(info: MediaInfo, output: Path, *, speech: Speech | None = None, fail_at: int = -1, overwrite: bool = False) -> None:
    """Writes a lossless film; fails as its caller at frame `fail_at`."""
    settings = WriteSettings(codec="ffv1", overwrite=overwrite)
    with VideoWriter(output, info, speech=speech, settings=settings) as writer, VideoReader(info) as reader:
        for frame in reader:
            if frame.index == fail_at:
                raise KeyboardInterrupt
            writer.write(frame)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_of_the_caller_leaves_nothing_and_keeps_the_older_film(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    (tmp_path / "out.mp4").write_bytes(b"an older film")
    with pytest.raises(KeyboardInterrupt):
        _write(info, tmp_path / "out.mp4", fail_at=5, overwrite=True)
    assert _names(tmp_path) == ["clip.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"an older film"


def test_speech_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))

    def broken() -> Iterator[np.ndarray]:
        yield tone(16000, 1600)
        raise MediaUnsupported("speech.mp3 breaks after 0.100 s", field="audio")

    with pytest.raises(MediaUnsupported, match=r"speech\.mp3"):
        _write(info, tmp_path / "out.mp4", speech=Speech(16000, 1, broken()))
    assert _names(tmp_path) == ["clip.mp4"]


def test_a_folder_that_vanishes_is_an_error_of_the_output(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    folder = tmp_path / "out"
    folder.mkdir()
    writer = VideoWriter(folder / "out.mp4", info)
    folder.rmdir()
    with pytest.raises(InvalidRequest, match="cannot be written") as caught, writer:
        pass
    assert caught.value.field == "output"


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(InvalidRequest, match="may not be written"):
        VideoWriter(tmp_path / "out.mp4", info)


def test_an_input_output_error_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InvalidRequest, match="Input/output error"):
        _write(info, tmp_path / "out.mp4")
    assert _names(tmp_path) == ["clip.mp4"]


def test_two_jobs_do_not_write_one_film(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "clip.mp4"))
    with VideoWriter(tmp_path / "out.mp4", info) as first:
        with pytest.raises(InvalidRequest, match="another job"):
            _write(info, tmp_path / "out.mp4")
        with VideoReader(info) as reader:
            for frame in reader:
                first.write(frame)
    assert first.report.frames == 12
