"""Locks of open files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.common.locks import open_locked, try_lock, unlock


def test_lock_belongs_to_handle(tmp_path: Path) -> None:
    """A lock belongs to one handle until the handle is closed."""
    first = open_locked(tmp_path / "lock")
    assert first is not None
    assert open_locked(tmp_path / "lock") is None
    assert open_locked(tmp_path / "lock", shared=True) is None
    os.close(first)
    again = open_locked(tmp_path / "lock")
    assert again is not None
    os.close(again)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_shared_lock_belongs_to_several_handles(tmp_path: Path) -> None:
    handles = [open_locked(tmp_path / "lock", shared=True) for _ in range(2)]
    assert None not in handles
    assert open_locked(tmp_path / "lock") is None
    for handle in handles:
        os.close(handle or 0)


def test_open_handle_releases_lock(tmp_path: Path) -> None:
    """A handle that stays open gives its lock back."""
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    assert (try_lock(first), try_lock(second)) == (True, False)
    unlock(first)
    assert try_lock(second)
    os.close(first)
    os.close(second)


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refused)
    handles = [open_locked(tmp_path / "lock") for _ in range(2)]
    assert None not in handles
    assert try_lock(handles[0] or 0) is None
    unlock(handles[0] or 0)
    for handle in handles:
        os.close(handle or 0)
