"""Folders that only this user may open."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from gateway.private_files import SocketFolder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _killed(folder: Path, *, seconds_ago: float) -> Path:
    folder.mkdir()
    (folder / "rpc").touch()
    then = time.time() - seconds_ago
    os.utime(folder, (then, then))
    return folder


def test_socket_folder_of_killed_gateway_goes(temporary: Path) -> None:
    abandoned = _killed(temporary / "dubstage-http-killed", seconds_ago=3600.0)

    SocketFolder().remove()

    assert not abandoned.exists()


def test_other_socket_folders_stay(temporary: Path) -> None:
    running = SocketFolder()
    long_ago = time.time() - 3600.0
    os.utime(running.path, (long_ago, long_ago))
    begins = _killed(temporary / "dubstage-http-begins", seconds_ago=1.0)
    other = _killed(temporary / "dubstage-other", seconds_ago=3600.0)

    second = SocketFolder()

    assert all(folder.is_dir() for folder in (running.path, begins, other))
    running.remove()
    second.remove()
    assert not running.path.exists()


def test_socket_folder_removed_once(temporary: Path) -> None:
    folder = SocketFolder()
    folder.remove()
    (temporary / "other").touch()
    with (temporary / "other").open() as other:
        folder.remove()
        other.read()


def test_socket_folder_is_private() -> None:
    folder = SocketFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
