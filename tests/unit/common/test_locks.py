"""Locks of open files, and folders that one process at a time writes to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.errors import InvalidRequestError
from services.common.files import make_folder
from services.common.locks import locked_folder, open_locked, try_lock, unlock

_HOLDS_AND_FORKS = """
import os, sys
from pathlib import Path
from services.common.locks import locked_folder

read, write = os.pipe()
with locked_folder(Path(sys.argv[1]), "in use"):
    if os.fork():
        os.read(read, 1)  # the worker runs
    else:
        os.write(write, b"1")
        sys.stdin.read()
    os._exit(0)
"""


def test_second_process_waits_for_lock(tmp_path: Path) -> None:
    """A second process is kept out until the first is done."""
    folder = tmp_path / "new" / "folder"
    with locked_folder(folder, "in use"):
        with pytest.raises(InvalidRequestError, match="in use") as caught, locked_folder(folder, "in use"):
            pytest.fail("two processes are in the folder")
        assert caught.value.field == "output"
    with locked_folder(folder, "in use"):
        assert folder.is_dir()


def test_forked_worker_keeps_no_lock(tmp_path: Path) -> None:
    """A forked worker that lives longer does not keep the lock."""
    command = [sys.executable, "-c", _HOLDS_AND_FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        # The worker waits for the end of its input, which comes at the end of this block.
        assert process.wait() == 0
        with locked_folder(tmp_path, "in use"):
            pass


def test_file_instead_of_lock_folder(tmp_path: Path) -> None:
    """A file in place of the folder is named."""
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(InvalidRequestError, match="file cannot be written: it is a file"):
        make_folder(file)
    with pytest.raises(InvalidRequestError, match=r"file/below cannot be written: Not a directory"):
        make_folder(file / "below")


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
